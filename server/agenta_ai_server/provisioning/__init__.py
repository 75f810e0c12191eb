"""Puts the refine prompt into a user's Agenta: what there is, what has to change, and the change."""
