"""Templates in the likeness of real ones, mutations of them, and what Agenta's renderers say of each."""
