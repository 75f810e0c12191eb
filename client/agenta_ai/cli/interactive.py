"""``refine --interactive``: the user decides about one prompt after the other."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agenta_ai import AgentaError, InvalidInput, diff_messages
from agenta_ai.cli import exits, streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai.cli.prompts import Prompt
    from agenta_ai.cli.work import Refinement, Work

_QUESTION = "(a)ccept, (r)efine again, (e)dit, (s)kip, (q)uit? "


class _QuitError(Exception):
    """The user has quit."""


def interact(names: Sequence[str], work: Work) -> int:
    """Refine prompts one after the other, and ask what to do with each.

    Args:
        names: Of the files.
        work: How they are refined.

    Returns:
        The exit code: that of the last failure, if there was one.
    """
    code = exits.OK
    with suppress(ImportError):  # not everywhere
        import readline  # noqa: F401  # with it, input() lets a line be edited
    for name in names:
        try:
            _one(name, work)
        except _QuitError:
            break
        except InvalidInput as failure:
            code = exits.complain(failure, exits.USAGE)
        except AgentaError as failure:
            code = exits.complain(exits.in_words(failure, "", {}), exits.exit_code(failure))
    return code


def _one(name: str, work: Work) -> None:
    prompt = work.read(name)
    output = work.output_of(name) or name
    streams.check_writable(output, "--output")
    work.screen.heading(name)
    done = _refined(work, prompt, None)
    _show(work, done)
    while True:
        match _ask(_QUESTION)[:1].lower():
            case "a":
                done.after.write(output)
                work.screen.say(f"Wrote {output}.")
                return
            case "s":
                work.screen.say(f"Skipped {name}.")
                return
            case "q":
                raise _QuitError
            case "r":
                done = _again(work, done)
                _show(work, done)
            case "e":
                done = _edited(done)
                _show(work, done)
            case _:
                work.screen.say("Type one of the letters in brackets, then press Enter.")


def _show(work: Work, done: Refinement) -> None:
    changes = diff_messages(done.before.template.get("messages"), done.after.template.get("messages"))
    work.screen.difference(changes, work.args.diff)
    work.screen.say(done.answer.summary if changes else "Nothing changed.")
    work.warn(done.answer)


def _again(work: Work, done: Refinement) -> Refinement:
    """Refine the refined prompt with other guidelines; the diff is still against the file."""
    guidelines = _ask("Guidelines: ")
    try:
        again = _refined(work, done.after, guidelines)
    except AgentaError as failure:
        exits.complain(exits.in_words(failure, "", {}), exits.exit_code(failure))
        return done
    return replace(again, before=done.before)


def _refined(work: Work, prompt: Prompt, guidelines: str | None) -> Refinement:
    with work.screen.waiting("refining") as on_progress:
        return work.refined(prompt, guidelines, prompt.name, on_progress)


def _edited(done: Refinement) -> Refinement:
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    suffix = Path(done.before.name).suffix
    with tempfile.TemporaryDirectory(prefix="agenta-ai-") as folder:
        file = str(Path(folder) / f"prompt{suffix}")
        done.after.write(file)
        try:
            ended = subprocess.run([*editor, file], check=False).returncode  # noqa: S603  # the user's own editor
        except OSError as error:
            exits.complain(f"Cannot run the editor {editor[0]}: {error.strerror}. Set EDITOR.", exits.USAGE)
            return done
        if ended:
            exits.complain(f"The editor {editor[0]} ended with {ended}. Nothing was changed.", exits.USAGE)
            return done
        try:
            return replace(done, after=done.after.edited(streams.read_text(file)[0]))
        except InvalidInput as failure:
            exits.complain(f"{failure} Nothing was changed.", exits.USAGE)
            return done


def _ask(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        print()
        raise _QuitError from None
