"""Repeats of a call: they join the run that is under way, or get the result that it left."""
