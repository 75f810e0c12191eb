"""Terminal output for people: colors, diffs, progress."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from agenta_ai.cli import streams
from agenta_ai.terminal import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenta_ai import MessageChange, Progress

Color = Literal["auto", "always", "never"]

_CODES = {"green": "32", "red": "31", "cyan": "36", "bold": "1"}
_OF_LINE = {"+": "green", "-": "red", "@": "cyan"}
# More than a line of a terminal shows. Measuring the width of a text of megabytes takes seconds.
_PROGRESS_CHARACTERS = 1_000
_OF_WORD = {"+": ("green", "{+", "+}"), "-": ("red", "[-", "-]")}


class Screen:
    """Draws on standard output, and progress on standard error.

    Args:
        color: ``"auto"``: colours on a terminal, unless ``NO_COLOR`` is set.
        quiet: Whether only errors and warnings are shown.
    """

    def __init__(self, color: Color = "auto", *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._colored = color == "always" or (color == "auto" and _may_color())

    def _styled(self, text: str, style: str) -> str:
        """Return printable text, in colour if colours are shown."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._colored and style in _CODES else text

    def say(self, text: str) -> None:
        """Write a line, unless ``quiet`` is set."""
        if not self.quiet:
            streams.say(text)

    def wrapped(self, text: str, indent: str) -> list[str]:
        """Return the lines of the text, each indented, and wrapped to the width of the terminal."""
        if not streams.is_terminal(sys.stdout):
            return [f"{indent}{line}" for line in text.splitlines()]
        width = max(shutil.get_terminal_size().columns, 20)
        return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)

    def line(self, text: str, style: str) -> None:
        """Write a line, in colour if colours are shown."""
        if not self.quiet:
            print(self._styled(one_line(text), style))

    def heading(self, text: str) -> None:
        """Write a heading."""
        self.line(text, "bold")

    def difference(self, changes: list[MessageChange], kind: Literal["line", "word"] = "line") -> None:
        """Draw a diff."""
        if self.quiet:
            return
        for change in changes:
            if kind == "line":
                for line in change.lines():
                    self.line(line, _OF_LINE.get(line[:1], ""))
            else:
                self.line(f"messages[{change.index}] {change.role}".rstrip(), "cyan")
                print("".join(self._word(*piece) for piece in change.words()))

    def _word(self, sign: str, text: str) -> str:
        text = printable(text)
        if sign == "=":
            return text
        style, before, after = _OF_WORD[sign]
        return self._styled(text if self._colored else f"{before}{text}{after}", style)

    @contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[Progress], None] | None]:
        """Show a spinner for as long as the context lasts.

        Yields a function that takes the text to show; ``None`` if it wouldn't be visible.
        """
        console = self._console()
        if console is None:
            yield None
            return
        from rich.text import Text

        with console.status(f"{what} …") as spinner:

            def show(progress: Progress) -> None:
                text = one_line(progress.text[:_PROGRESS_CHARACTERS]).rstrip(".")
                # On one line, whatever the width: the spinner and its blank take two columns.
                spinner.update(Text(f"{text} …", no_wrap=True, overflow="ellipsis"))

            yield show

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[Callable[[], None]], None]]:
        """Show a progress bar. Yields a function that prints a text and counts one more."""
        console = self._console()
        if console is None:
            yield lambda show: show()
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(f"{what} …", total=total)

            def step(show: Callable[[], None]) -> None:
                # Without the bar, so that lines aren't wrapped and can be copied.
                bar.stop()
                show()
                bar.start()
                bar.advance(task)

            yield step

    def _console(self) -> Any:
        """Return a console of rich for standard error, or ``None`` if that isn't a terminal or rich isn't installed."""
        if self.quiet or not streams.is_terminal(sys.stderr):
            return None
        try:
            from rich.console import Console
        except ImportError:
            return None
        return Console(file=sys.stderr, highlight=False, markup=False, emoji=False, no_color=not self._colored)


def _may_color() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return streams.is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"
