"""Whether the tools file and the prompts that are deployed in Agenta still belong together."""
