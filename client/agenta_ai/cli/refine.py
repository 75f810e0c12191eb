"""``refine``: one prompt or many, to the terminal, to files or in place."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TYPE_CHECKING

from agenta_ai import AgentaError, InvalidInput, RefinedPrompt, RefinedWithCases
from agenta_ai.cli import exits, prompts, streams
from agenta_ai.cli.cases import refine_with_cases
from agenta_ai.cli.interactive import interact
from agenta_ai.cli.work import Work

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from agenta_ai.cli.access import Access
    from agenta_ai.cli.running import Running
    from agenta_ai.cli.work import Refinement


def refine(args: argparse.Namespace, how: Access, running: Running) -> int:
    """Refine the prompts, and write them as the options say."""
    names = prompts.expand(args.files)
    _check_usage(args, names)
    # Many prompts exceed the burst of a rate limit.
    with how.client(wait_for_limit=args.wait or len(names) > 1, retries=args.retries) as client:
        work = Work(client, args, running, how)
        if args.cases:
            return refine_with_cases(names[0], client, work)
        if args.interactive:
            return interact(names, work)
        return _one(work, names[0]) if len(names) == 1 else _many(work, names)


def _one(work: Work, name: str) -> int:
    prompt = work.read(name)
    if (output := work.output_of(name)) not in ("", "-"):
        streams.check_writable(output, "--output")
    with work.screen.waiting("refining") as on_progress:
        done = work.refined(prompt, on_progress=on_progress)
    # Try both, even if one fails: the answer has been billed.
    try:
        work.keep(done, output)
    finally:
        _show(work, done)
    return exits.WOULD_CHANGE if work.args.check and done.changed else exits.OK


def _show(work: Work, done: Refinement) -> None:
    answer = done.answer
    if work.args.json:
        streams.print_json(_as_json(answer))
        return
    if work.args.output == "-":
        # Standard output gets only the prompt.
        if not work.screen.quiet:
            streams.note(answer.summary)
    else:
        work.screen.difference(answer.diff(), work.args.diff)
        work.screen.say(answer.summary)
    work.warn(answer)


def _many(work: Work, names: Sequence[str]) -> int:
    found = _Findings(work)
    waited: dict[Future[Refinement], str] = {}
    pool = ThreadPoolExecutor(work.args.jobs, thread_name_prefix="agenta-ai")
    try:
        with work.screen.progress("refining", len(names)) as step:
            for name in names:
                waited[pool.submit(_refined_file, work, name)] = name
            for future in as_completed(waited):
                step(lambda future=future: found.add(waited[future], future))  # type: ignore[misc]
    except BaseException:
        # Don't wait for running calls: closing the client ends them.
        work.running.freeze()
        # What has been answered has been billed. Whatever prevents this, the first error is the one to report.
        with suppress(Exception):
            found.end_early(names, waited)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found.end(names)


def _refined_file(work: Work, name: str) -> Refinement:
    prompt = work.read(name)
    if output := work.output_of(name):
        streams.check_writable(output, "--output")
    done = work.refined(prompt, label=name)
    work.keep(done, output)
    return done


class _Findings:
    """The outcomes of many prompts."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._done: dict[str, Refinement] = {}
        self._failed: dict[str, AgentaError] = {}
        self._code = exits.OK

    def add(self, name: str, future: Future[Refinement]) -> None:
        try:
            done = future.result()
        except AgentaError as failure:
            self._failed[name] = failure
            code = exits.exit_code(failure)
            words = self._work.in_words(failure)
            self._code = max(self._code, exits.complain(words if name in words else f"{name}: {words}", code))
            return
        self._done[name] = done
        if self._work.args.json:
            return
        screen = self._work.screen
        screen.heading(f"{name}: {done.answer.summary}" if done.changed else f"{name}: unchanged")
        screen.difference(done.answer.diff(), self._work.args.diff)
        self._work.warn(done.answer)

    def end(self, names: Sequence[str]) -> int:
        """Print the summary, and return the exit code."""
        changed = sum(done.changed for done in self._done.values())
        if self._work.args.json:
            self._print_json(names)
        else:
            verb = "would change" if self._work.args.check else "refined"
            counts = [f"{changed} {verb}", f"{len(self._done) - changed} unchanged", f"{len(self._failed)} failed"]
            self._work.screen.say(f"{len(names)} prompts: {', '.join(counts)}.")
        return self._code or (exits.WOULD_CHANGE if self._work.args.check and changed else exits.OK)

    def end_early(self, names: Sequence[str], waited: Mapping[Future[Refinement], str]) -> None:
        """Show the outcomes that are there and haven't been shown."""
        for future, name in waited.items():
            if future.done() and not future.cancelled() and not self._has(name):
                self.add(name, future)
        if self._work.args.json:
            self._print_json(names)

    def _has(self, name: str) -> bool:
        return name in self._done or name in self._failed

    def _print_json(self, names: Sequence[str]) -> None:
        streams.print_json([self._as_json(name) for name in names if self._has(name)])

    def _as_json(self, name: str) -> dict[str, object]:
        if name in self._done:
            done = self._done[name]
            return {"file": name, "changed": done.changed, **_as_json(done.answer)}
        failure = self._failed[name]
        return {"file": name, "error": str(failure), **(exits.as_json(failure) or {})}


def _as_json(answer: RefinedPrompt | RefinedWithCases) -> dict[str, object]:
    names = ("template", "messages", "summary", "trace_id", "meta", "request_id", "call_id")
    return {name: getattr(answer, name) for name in names}


def _check_usage(args: argparse.Namespace, names: Sequence[str]) -> None:
    wrong = {
        "--cases is for one prompt. Name one file.": args.cases is not None and len(names) > 1,
        "--cases can't be combined with --check or --interactive. Leave them out.": (
            args.cases is not None and (args.check or args.interactive)
        ),
        "Standard input can't be both the prompt and the cases. Name a file.": args.cases == "-" and "-" in names,
        "--report - can't share standard output. Leave out --json and --output -.": (
            args.report == "-" and (args.json or args.output == "-")
        ),
        "--rounds, --repeat, --pass-at-least, --max-calls and --report belong to --cases. Name a file of cases.": (
            args.cases is None and any(value is not None for value in _of_cases(args))
        ),
        "--jobs must be at least 1.": args.jobs < 1,
        "--output - and --json both write to standard output. Choose one.": args.output == "-" and args.json,
        "--in-place cannot write standard input back. Use --output.": args.in_place and "-" in names,
        "--request-id is for one prompt. Name one file.": args.request_id is not None and len(names) > 1,
        "--output must be a folder for more than one prompt.": (
            bool(args.output) and len(names) > 1 and not os.path.isdir(args.output)
        ),
        "Two files would have the same name in --output. Refine them one at a time.": (
            bool(args.output) and len({os.path.basename(name) for name in names}) < len(names)
        ),
        "--interactive can't be combined with --check, --json or --quiet. Leave them out.": (
            args.interactive and (args.check or args.json or args.quiet)
        ),
        "--interactive needs a terminal, and files that it can write.": args.interactive
        and ("-" in names or not (streams.is_terminal(sys.stdin) and streams.is_terminal(sys.stdout))),
    }
    for sentence, applies in wrong.items():
        if applies:
            raise InvalidInput(sentence)


def _of_cases(args: argparse.Namespace) -> tuple[object, ...]:
    return args.rounds, args.repeat, args.pass_at_least, args.max_calls, args.report
