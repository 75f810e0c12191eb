"""Replaces texts in JSON and YAML, and keeps everything else as it was written: layout, numbers, comments."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING

from agenta_ai.terminal import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import yaml

# Where a text stands: keys and indexes from the root.
Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"[^\s,\]}]+")


class OtherChangeError(ValueError):
    """Something other than texts differs."""


def changed_texts(old: object, new: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the places where texts differ, with the new texts.

    Raises:
        OtherChangeError: Something else differs.
    """
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key, item in old.items():
            yield from changed_texts(item, new[key], (*path, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, item in enumerate(old):
            yield from changed_texts(item, new[index], (*path, index))
    elif isinstance(old, str) and isinstance(new, str):
        if old != new:
            yield path, new
    elif old != new or type(old) is not type(new):
        raise OtherChangeError


def in_json(text: str, changes: Mapping[Path, str]) -> str:
    """Return JSON with new texts at these places."""
    spans = dict(_json_strings(text))
    ascii_only = text.isascii() and "\\u" in text
    return _spliced(text, {spans[path]: _json_text(new, ascii_only) for path, new in changes.items()})


def in_yaml(text: str, changes: Mapping[Path, str]) -> str:
    """Return YAML with new texts at these places, in the style of the old ones if possible."""
    import yaml

    nodes = dict(_yaml_scalars(yaml.compose(text, Loader=yaml.SafeLoader)))
    return _spliced(
        text,
        {
            (node.start_mark.index, node.end_mark.index): _yaml_text(text, node, changes[path])
            for path, node in nodes.items()
            if path in changes
        },
    )


def _spliced(text: str, pieces: Mapping[tuple[int, int], str]) -> str:
    parts, last = [], 0
    for (start, end), piece in sorted(pieces.items()):
        parts += [text[last:start], piece]
        last = end
    return "".join([*parts, text[last:]])


def _json_text(text: str, ascii_only: bool) -> str:
    encoded = json.dumps(text, ensure_ascii=ascii_only)
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded)


def _json_strings(text: str) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Yield all values of JSON that are texts, and where they begin and end. The text is known to be JSON."""
    found: list[tuple[Path, tuple[int, int]]] = []
    _scan(text, _skip(text, 0), (), found)
    return iter(found)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _scan(text: str, at: int, path: Path, found: list[tuple[Path, tuple[int, int]]]) -> int:
    """Record the texts of the value that begins here, and return its end."""
    match text[at]:
        case '"':
            end: int = scanstring(text, at + 1, False)[1]
            found.append((path, (at, end)))
            return end
        case "{" | "[":
            return _scan_items(text, at, path, found)
        case _:
            scalar = _SCALAR.match(text, at)
            return scalar.end() if scalar else len(text)


def _scan_items(text: str, at: int, path: Path, found: list[tuple[Path, tuple[int, int]]]) -> int:
    is_object, index = text[at] == "{", 0
    at = _skip(text, at + 1)
    while text[at] not in "]}":
        step: str | int = index
        if is_object:
            step, at = scanstring(text, at + 1, False)
            at = _skip(text, _skip(text, at) + 1)  # the colon
        at = _skip(text, _scan(text, at, (*path, step), found))
        if text[at] == ",":
            at = _skip(text, at + 1)
        index += 1
    return at + 1


def _yaml_scalars(node: yaml.Node | None, path: Path = ()) -> Iterator[tuple[Path, yaml.ScalarNode]]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _yaml_scalars(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _yaml_scalars(value, (*path, index))
    elif isinstance(node, yaml.ScalarNode):
        yield path, node


def _yaml_text(text: str, node: yaml.ScalarNode, new: str) -> str:
    if node.style not in ("|", ">"):
        return _json_text(new, ascii_only=False)
    old = text[node.start_mark.index : node.end_mark.index]
    if "\r\n" in old:
        return _block(old.replace("\r\n", "\n"), new).replace("\n", "\r\n")
    return _block(old, new)


def _block(old: str, new: str) -> str:
    """Return a text of lines in place of an old one, both as they stand in YAML."""
    header, _, body = old.partition("\n")
    # A block ends where the next thing begins: behind its last line end, and behind empty lines.
    ending = "\n" + body[len(body.rstrip()) :].partition("\n")[2] if old.endswith("\n") else ""
    if not _fits_a_block(new):
        return _json_text(new, ascii_only=False) + ending
    indent = next((line[: len(line) - len(line.lstrip(" "))] for line in body.split("\n") if line.strip()), "  ")
    lines = "\n".join(indent + line if line else "" for line in new.removesuffix("\n").split("\n"))
    comment = re.search(r"\s+#.*", header)
    return f"|{'' if new.endswith(chr(10)) else '-'}{comment[0] if comment else ''}\n{lines}{ending}"


def _fits_a_block(text: str) -> bool:
    return bool(text) and text[0] not in " \n\t" and not text.endswith("\n\n") and not CONTROLS.search(text)
