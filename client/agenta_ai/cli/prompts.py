"""Reads and writes prompts as text, Markdown, YAML and JSON, and keeps their format and layout."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from agenta_ai.cli import layout, streams
from agenta_ai.terminal import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Sequence

Format = Literal["text", "json", "yaml"]
FORMATS: tuple[Format, ...] = ("text", "json", "yaml")

_BY_SUFFIX: dict[str, Format] = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".md": "text", ".txt": "text"}
# The beginning of a JSON template; a text may begin with {{name}}.
_LIKE_JSON = re.compile(r'\s*(\{\s*["}]|\[\s*\{\s*")')
# The front matter of Markdown, with settings of other tools.
_FRONT_MATTER = re.compile(r"---\r?\n.*?\n---\r?\n\s*", re.DOTALL)
# More than the server takes. Python could write a few hundred.
_MOST_LEVELS = 200


@dataclass(frozen=True)
class Prompt:
    """A prompt that was read from a file.

    Attributes:
        name: Of the file, as the user wrote it; ``-`` for standard input.
        text: What the file holds.
        mark: The byte order mark before it, if there was one.
        format: How it is written.
        template: The template that is sent.
        is_list: Whether the file holds the messages alone, without an object around them.
        lost_comments: Whether YAML had to be written anew, without the comments and the layout that the file had.
    """

    name: str
    text: str
    mark: bytes
    format: Format
    template: dict[str, Any]
    is_list: bool = False
    lost_comments: bool = False

    def with_template(self, template: dict[str, Any]) -> Prompt:
        """Return the prompt with the texts of another template, and everything else as it was."""
        written = self._written(template)
        text = self._anew(template) if written is None else written
        lost_comments = written is None and self.format == "yaml"
        return replace(self, text=text, template=template, lost_comments=lost_comments)

    @property
    def content(self) -> bytes:
        """What its file holds."""
        return self.mark + self.text.encode()

    def edited(self, text: str) -> Prompt:
        """Return the prompt with another content of its file.

        Raises:
            InvalidInput: It isn't of the prompt's format.
        """
        role: str = self.template["messages"][0]["role"] if self.format == "text" else "user"
        return parse(self.name, text, self.mark, self.format, role)

    def write(self, name: str) -> None:
        """Write the prompt to a file. A byte order mark is written only to the file that had it."""
        streams.write(name, self.text, self.mark if name == self.name else b"")

    def put_aside(self) -> str:
        """Write the prompt to a new temporary file, and return its name.

        Raises:
            InvalidInput: It can't be written.
        """
        return streams.write_new(self.text, os.path.splitext(self.name)[1])

    def _written(self, template: dict[str, Any]) -> str | None:
        """Return the text with other texts in it; ``None`` if that can't be, as with an alias of YAML."""
        if self.format == "text":
            head, body, tail = _framed(self.name, self.text)
            new: str = template["messages"][0]["content"]
            return head + (new.replace("\n", "\r\n") if "\r\n" in body + tail else new) + tail
        content = self._content(template)
        try:
            changes = dict(layout.changed_texts(self._content(self.template), content))
            text = (layout.in_json if self.format == "json" else layout.in_yaml)(self.text, changes)
            if _parsed(self.format, text) == content:
                return text
        except (layout.OtherChangeError, LookupError, ValueError):
            pass
        return None

    def _anew(self, template: dict[str, Any]) -> str:
        text = _dumped(self.format, self._content(template))
        return text.replace("\n", "\r\n") if "\r\n" in self.text else text

    def _content(self, template: dict[str, Any]) -> Any:
        """Return what a file with the template holds."""
        return template["messages"] if self.is_list else template


def read(name: str, wanted: Format | None, role: str) -> Prompt:
    """Return the prompt that a file holds.

    Args:
        name: Of the file; ``-`` for standard input.
        wanted: Its format; ``None`` to find out by its name or its beginning.
        role: Of the message that a text becomes: ``"user"`` or ``"system"``.

    Raises:
        InvalidInput: It can't be read, is empty, or isn't of its format.
    """
    text, mark = streams.read_text(name)
    return parse(name, text, mark, wanted or _format_of(name, text), role)


def parse(name: str, text: str, mark: bytes, format_: Format, role: str) -> Prompt:
    """Return a text as a prompt. See :func:`read`."""
    from agenta_ai.errors import InvalidInput

    if not text.strip():
        raise InvalidInput(f"{streams.shown(name)} is empty.")
    if format_ == "text":
        body = _framed(name, text)[1].replace("\r\n", "\n")
        return Prompt(name, text, mark, format_, {"messages": [{"role": role, "content": body}]})
    try:
        content = _parsed(format_, text)
        is_deep = _is_deep(content)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{streams.shown(name)} is not {format_.upper()}: {reason}.") from None
    except RecursionError:
        is_deep = True
    if is_deep:
        raise InvalidInput(f"{streams.shown(name)} has more than {_MOST_LEVELS} levels of nesting. Use fewer.")
    if isinstance(content, list):
        return Prompt(name, text, mark, format_, {"messages": content}, is_list=True)
    if not isinstance(content, dict):
        raise InvalidInput(
            f'{streams.shown(name)} is not a prompt template. It should look like {{"messages": [...]}}, '
            "or pass --format text."
        )
    return Prompt(name, text, mark, format_, content)


def expand(names: Sequence[str]) -> list[str]:
    """Return the names of files, with patterns such as ``prompts/**/*.md`` replaced by what they match.

    Raises:
        InvalidInput: A pattern matches nothing, or a folder is named.
    """
    from agenta_ai.errors import InvalidInput

    found: dict[str, None] = {}
    for name in names:
        if os.path.isdir(name):
            raise InvalidInput(f"{name} is a folder. Use a pattern, such as '{os.path.join(name, '**', '*.md')}'.")
        matches = [name]
        if name != "-" and not os.path.lexists(name) and glob.has_magic(name):
            matches = sorted(match for match in glob.glob(name, recursive=True) if os.path.isfile(match))
            if not matches:
                raise InvalidInput(f"No file matches {name}.")
        found |= dict.fromkeys(matches)
    return list(found)


def _format_of(name: str, text: str) -> Format:
    known = _BY_SUFFIX.get(os.path.splitext(name)[1].lower())
    return known or ("json" if _LIKE_JSON.match(text) else "text")


def _framed(name: str, text: str) -> tuple[str, str, str]:
    """Return the front matter, the text, and the blanks after it, which aren't part of the prompt."""
    head = ""
    if name.lower().endswith((".md", ".markdown")) and (matter := _FRONT_MATTER.match(text)):
        head = matter[0]
    body = text[len(head) :].rstrip()
    return head, body, text[len(head) + len(body) :]


def _is_deep(content: object) -> bool:
    """Return whether it has so many levels that writing it could exceed Python's limit, after the call was billed."""
    level = {id(content): content}
    for _ in range(_MOST_LEVELS):
        parts = (
            part.values() if isinstance(part, dict) else part
            for part in level.values()
            if isinstance(part, dict | list)
        )
        # Each once: YAML may repeat a part any number of times.
        level = {id(item): item for part in parts for item in part}
    return any(isinstance(part, dict | list) for part in level.values())


def _parsed(format_: Format, text: str) -> Any:
    if format_ == "json":
        return json.loads(text)
    yaml = _yaml()
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f": line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem}{where}") from None
    except yaml.YAMLError as error:  # of a character
        raise ValueError(str(error)) from None


def _dumped(format_: Format, content: Any) -> str:
    if format_ == "json":
        return streams.to_json(content) + "\n"
    # Characters that YAML takes for line ends are only safe when escaped.
    plain = not CONTROLS.search(json.dumps(content, ensure_ascii=False))
    text: str = _yaml().safe_dump(content, allow_unicode=plain, sort_keys=False)
    return text


def _yaml() -> Any:
    from agenta_ai.errors import InvalidInput

    try:
        import yaml
    except ImportError:
        raise InvalidInput("YAML needs PyYAML. Install the extra 'cli': in a clone, pip install '.[cli]'.") from None
    return yaml
