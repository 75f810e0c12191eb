"""The file that says which deployed prompts are tools; docs/tools.md describes its format."""
