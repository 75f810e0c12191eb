"""Rendering of old and new texts with the same inputs, in a process of its own, to see what a refinement lost.

A process of ``workers`` does it. ``comparison`` decides. ``situations`` chooses what is unusual about the
inputs, and ``inputs`` makes them, of the ``shapes`` that ``jinja`` (with ``probes``) and ``mustache`` have found.

Nothing here may run in the service itself: a template is hostile code.
"""
