"""The commands ``agenta-ai-server tools``: show the tools file, and compare it with what is deployed."""
