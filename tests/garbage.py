"""Keeps garbage collections out of what is measured."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect what there is, and then nothing more until the end."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
