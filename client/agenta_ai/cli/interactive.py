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
        except AgentaError as failure:
            code = exits.complain(work.in_words(failure), exits.exit_code(failure))
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
                if done.would_undo(output):
                    done = _compared_again(work, done)
                elif _wrote(work, done, output):
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


def _compared_again(work: Work, done: Refinement) -> Refinement:
    """Show the difference to what the file holds by now: the user hasn't seen what accepting would undo."""
    name = done.before.name
    exits.complain(f"{name} was changed in the meantime. If you accept now, this changes:", exits.USAGE)
    try:
        done = replace(done, before=work.read(name))
    except InvalidInput as failure:
        exits.complain(failure, exits.USAGE)
        return done
    _show(work, done)
    return done


def _wrote(work: Work, done: Refinement, output: str) -> bool:
    try:
        work.write(done, output)
    except InvalidInput as failure:
        exits.complain(f"{failure} Accept again once it can be written, or edit it and save it elsewhere.", exits.USAGE)
        return False
    work.screen.say(f"Wrote {output}.")
    return True


def _again(work: Work, done: Refinement) -> Refinement:
    """Refine the refined prompt with other guidelines; the diff is still against the file."""
    guidelines = _ask("Guidelines: ")
    try:
        again = _refined(work, done.after, guidelines)
    except AgentaError as failure:
        exits.complain(work.in_words(failure), exits.exit_code(failure))
        return done
    return replace(again, before=done.before)


def _refined(work: Work, prompt: Prompt, guidelines: str | None) -> Refinement:
    with work.screen.waiting("refining") as on_progress:
        return work.refined(prompt, guidelines, prompt.name, on_progress)


def _edited(done: Refinement) -> Refinement:
    """Let the user edit the refined prompt, again if it is no prompt any more: they have spent time on it."""
    try:
        editor = _editor()
        with tempfile.TemporaryDirectory(prefix="agenta-ai-") as folder:
            file = str(Path(folder) / f"prompt{Path(done.before.name).suffix}")
            done.after.write(file)
            while True:
                _run(editor, file)
                try:
                    return replace(done, after=done.after.edited(streams.read_text(file)[0]))
                except InvalidInput as failure:
                    exits.complain(failure, exits.USAGE)
                if not _ask("Edit it again, (y)es or (n)o? ").lower().startswith("y"):
                    return done
    except InvalidInput as failure:
        exits.complain(f"{failure} Nothing was changed.", exits.USAGE)
    except OSError as error:
        exits.complain(f"Cannot write a temporary file: {error.strerror}. Set TMPDIR.", exits.USAGE)
    return done


def _editor() -> list[str]:
    """Return the command of the user's editor."""
    for name in ("VISUAL", "EDITOR"):
        try:
            if words := shlex.split(os.environ.get(name, "")):
                return words
        except ValueError as error:
            raise InvalidInput(f"{name} is not a command: {error}. Set it to one, such as vi.") from None
    return ["vi"]


def _run(editor: Sequence[str], file: str) -> None:
    try:
        ended = subprocess.run([*editor, file], check=False).returncode  # noqa: S603  # the user's own editor
    except OSError as error:
        raise InvalidInput(f"Cannot run the editor {editor[0]}: {error.strerror}. Set EDITOR.") from None
    if ended:
        raise InvalidInput(f"The editor {editor[0]} ended with {ended}.")


def _ask(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        print()
        raise _QuitError from None
