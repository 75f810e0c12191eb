"""The file that says which deployed prompts are tools; docs/tools.md has its form."""
