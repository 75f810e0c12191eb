"""Processes for what callers could make take any time: rendering templates, and checking outputs by schemas.

``pool`` starts processes that run ``worker``, which gives each task a limit on CPU time and memory.
"""
