"""The composition root: one ``build_…`` function for each part, from its settings."""
