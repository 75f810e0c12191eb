"""Deploys prompts to a user's Agenta: reads the state, plans the change, and makes it."""
