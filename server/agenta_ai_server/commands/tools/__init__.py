"""The commands ``agenta-ai-server tools``: what is in the tools file, and whether it fits what is deployed."""
