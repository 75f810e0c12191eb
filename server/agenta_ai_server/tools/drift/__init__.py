"""Compares the tools file with the prompts that are deployed in Agenta."""
