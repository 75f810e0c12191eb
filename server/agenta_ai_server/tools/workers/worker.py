"""A worker process: it reads one request after the other from its input, and answers on its output.

A message is its length in four bytes, most significant first, and JSON.

A template is hostile code that Jinja2's sandbox holds. Should one get out of it, it finds no environment, and can open
no file or socket and start no process. What takes too much CPU time ends the process, also in the middle of a library's
native code.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Final

from agenta_ai_server.tools.cases import json_expectation
from agenta_ai_server.tools.refine_prompt.rendering import comparison
from agenta_ai_server.tools.refine_prompt.rendering.text import TooComplex
from agenta_ai_server.tools.refine_prompt.rendering.verdict import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# The CPU time that may be taken for a prompt. Before that, ``comparison.py`` refuses what can be interrupted.
PROMPT_SECONDS: Final = 0.35
# The CPU time that may be taken to read a schema, or to read it and check an output. The largest take a quarter.
SCHEMA_SECONDS: Final = 1.0
# The address space that the process may take. The interpreter alone needs about 30 MB of it.
MEMORY_BYTES: Final = 100 * 2**20
# Begins each message.
LENGTH_BYTES: Final = 4
# More isn't sent, and ``pool`` reads no more.
MAX_ANSWER_BYTES: Final = 2**20
_MAX_FOUND: Final = 20
_EVERYTHING: Final = "{{ 'é\\n'|tojson|pprint|urlencode|urlize|wordwrap|striptags }}{{ a.b.c }}"


def main() -> None:
    """Answer until the input ends."""
    # Loads what is loaded when it is first used, before the limits forbid to open a file.
    comparison.compare("jinja2", [_EVERYTHING], [], [_EVERYTHING, "{% if %}", "{% if a %}", "{{ a.b.c() }}"])
    comparison.compare("mustache", ["{{$.a}}"], [], ["{{a}}"])
    json_expectation.faults({"json_schema": {"pattern": "a"}, "json_contains": 1}, '"b"')
    _limit()
    while length := _receive(LENGTH_BYTES):
        request = json.loads(_receive(int.from_bytes(length, "big")))
        work, seconds = _TASKS[request.pop("task")]
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = _answer(work, request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)


def _answer(work: Callable[..., list[Any]], arguments: Mapping[str, Any]) -> bytes:
    try:
        found = _found(work, arguments)[:_MAX_FOUND]
        answer = json.dumps({"found": [each if isinstance(each, str) else astuple(each) for each in found]}).encode()
    except BaseException:
        # Out of memory, or a fault of ours that a caller has found: in both cases this process isn't used again. A
        # panic of native code is no Exception.
        return b'{"exceeded": true}'
    return answer if len(answer) <= MAX_ANSWER_BYTES else b'{"too_long": true}'


def _found(work: Callable[..., list[Any]], arguments: Mapping[str, Any]) -> list[Any]:
    try:
        return work(**arguments)
    except TooComplex as error:
        return [Fault(None, "complex", str(error))]


def _read(template_format: str, old: Sequence[str], fixed: Sequence[str]) -> list[Fault]:
    fault = comparison.read(template_format, old, fixed)
    return [fault] if fault else []


# What can be asked for, and the CPU time that it may take.
_TASKS: Final[Mapping[str, tuple[Callable[..., list[Any]], float]]] = {
    "read templates": (_read, PROMPT_SECONDS),
    "compare templates": (comparison.compare, comparison.MAX_SECONDS),
    "read an expectation": (json_expectation.violations, SCHEMA_SECONDS),
    "check an output": (json_expectation.faults, SCHEMA_SECONDS),
}


def _limit() -> None:
    # Has no effect on what is open, and nothing else is needed.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # others don't have these, or don't keep to them
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _receive(size: int) -> bytes:
    pieces = []
    while size and (piece := os.read(0, min(size, 2**16))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _write(message: bytes) -> None:
    while message:
        message = message[os.write(1, message) :]


if __name__ == "__main__":
    main()
