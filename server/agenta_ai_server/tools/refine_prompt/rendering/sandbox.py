"""Agenta's environment for Jinja2, with bounds on what takes long."""

from __future__ import annotations

import re
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedEnvironment

from agenta_ai_server.tools.refine_prompt.rendering.inputs import CHANCE, PLAIN, Object, note_miss
from agenta_ai_server.tools.refine_prompt.rendering.text import MAX_TOKENS, TooComplex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jinja2.lexer import Token, TokenStream
    from jinja2.runtime import Context

# Bounds on what one operation makes: the width of a field, the length of a range or of a repetition.
_MOST: Final = 10_000
_WIDE = frozenset({"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "wordwrap", "zfill"})
_HUGE = re.compile(r"\d{5}")


class _Bounded(Extension):
    """Stops reading a text that has too many tokens."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for count, token in enumerate(stream):
            if count == MAX_TOKENS:
                raise TooComplex
            yield token


class Sandbox(SandboxedEnvironment):
    """Agenta's environment, but for bounds on what takes long, and for chance, whose result depends on the mode."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(optimized=False, extensions=[_Bounded])
        self.filters = {name: _bounded(function, name) for name, function in self.filters.items()}
        self.mode = PLAIN
        self.filters["random"] = self._random
        self.globals["range"] = bounded_range
        self.globals["lipsum"] = self._lipsum
        self.globals["dict"] = _dict

    def _random(self, sequence: Any) -> Any:
        found = list(sequence)
        if not found:
            return self.undefined("No random item, sequence was empty.")
        return found[-1 if self.mode == CHANCE else 0]

    def _lipsum(self, *_args: Any, **_kwargs: Any) -> str:
        return "Lorem ipsum. " * (50 if self.mode == CHANCE else 1)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operation that could take long."""
        sizes = [len(each) if isinstance(each, str | list | tuple) else each for each in (left, right)]
        numbers = all(isinstance(size, int) for size in sizes)
        if operator == "*" and numbers and not isinstance(left, int) * isinstance(right, int):
            _refuse(sizes[0] * sizes[1] > _MOST * 10)
        if operator == "**" or (operator == "*" and numbers):
            _refuse(any(isinstance(each, int) and abs(each) > 10**100 for each in (left, right)))
        if operator == "**" and numbers:
            _refuse(abs(sizes[1]) > 1000)
        if operator == "%" and isinstance(left, str):
            _refuse(bool(_HUGE.search(left)))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call what a template may call."""
        if getattr(__obj, "__name__", "") in _WIDE:
            _check_width(args, kwargs)
        formatted = getattr(getattr(__obj, "__wrapped__", None), "__self__", None)
        _refuse(isinstance(formatted, str) and bool(_HUGE.search(formatted)))
        return super().call(__context, __obj, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute or an item, and note one that isn't there."""
        if type(obj) is Object and obj.has_item(attribute):
            return obj[attribute]
        return _noted(super().getattr(obj, attribute), obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item or an attribute, and note one that isn't there."""
        return _noted(super().getitem(obj, argument), obj, argument)


def _noted(value: Any, obj: Any, key: Any) -> Any:
    if isinstance(value, Undefined):
        note_miss(obj, key)
    return value


def _bounded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    if name not in _WIDE and name != "format":
        return function

    @wraps(function)
    def apply(*args: Any, **kwargs: Any) -> Any:
        if name == "format":
            _refuse(any(isinstance(arg, str) and bool(_HUGE.search(arg)) for arg in args[:1]))
        # What is formatted may be a width if the format says so.
        if name != "format" or "*" in args[0]:
            _check_width(args, kwargs)
        return function(*args, **kwargs)

    return apply


def _check_width(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _refuse(any(isinstance(each, int) and abs(each) > _MOST for each in (*args, *kwargs.values())))


def _dict(*args: Any, **kwargs: Any) -> dict[str, Any]:
    if not args or not isinstance(args[0], Object):
        return dict(*args, **kwargs)
    made = args[0].copy()
    made.update(**kwargs)
    return made


def bounded_range(*args: int) -> range:
    """Return a range of at most some thousand numbers."""
    found = range(*args)
    _refuse(len(found) > _MOST)
    return found


def _refuse(too_much: bool) -> None:
    if too_much:
        raise SecurityError(f"it creates a value with more than {_MOST:,} elements")
