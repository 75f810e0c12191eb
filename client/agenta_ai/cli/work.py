"""Refines one prompt with the options of the command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from agenta_ai import InvalidInput
from agenta_ai.cli import exits, prompts, streams
from agenta_ai.cli.screen import Screen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from agenta_ai import AgentaError, Progress, RefinedPrompt, RefinedWithCases, SyncClient
    from agenta_ai.cli.access import Access
    from agenta_ai.cli.prompts import Prompt
    from agenta_ai.cli.running import Running


@dataclass(frozen=True)
class Refinement:
    """The outcome of one prompt.

    Attributes:
        before: As it was read.
        after: With the refined texts.
        answer: What the service answered.
    """

    before: Prompt
    after: Prompt
    answer: RefinedPrompt | RefinedWithCases

    @property
    def changed(self) -> bool:
        """Whether the refinement changes anything."""
        return self.before.template != self.after.template

    def would_undo(self, output: str) -> bool:
        """Return whether writing it there would undo a change that was made to its file since it was read."""
        name = self.before.name
        is_own = name != "-" and os.path.realpath(output) == os.path.realpath(name) and os.path.isfile(output)
        return is_own and streams.read_bytes(output) != self.before.content


class Work:
    """Refines prompts with the options of one command.

    Args:
        client: Of the server.
        args: The options.
        running: Where calls are noted for as long as they run.
        how: What the client was made of.
    """

    def __init__(self, client: SyncClient, args: argparse.Namespace, running: Running, how: Access) -> None:
        self.args = args
        self.screen = Screen(args.color, quiet=args.quiet)
        self._client = client
        self.running = running
        self._how = how

    def read(self, name: str) -> Prompt:
        """Return a prompt from its file."""
        return prompts.read(name, self.args.format, "system" if self.args.system else "user")

    def refined(
        self,
        prompt: Prompt,
        guidelines: str | None = None,
        label: str = "",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Refinement:
        """Refine a prompt, with other guidelines than the option's if given."""
        args = self.args
        request_id = str(uuid4()) if args.request_id is None else args.request_id
        with self.running.call(request_id, label):
            answer = self._client.refine_prompt(
                prompt.template,
                guidelines=args.guidelines if guidelines is None else guidelines,
                context=args.context,
                request_id=request_id,
                timeout=args.timeout,
                rerun_if_outcome_unknown=args.rerun_if_outcome_unknown,
                on_progress=on_progress,
            )
        return Refinement(prompt, prompt.with_template(answer.template), answer)

    def output_of(self, name: str) -> str:
        """Return the file to which a refined prompt is written; empty if there is none."""
        if self.args.in_place:
            return name
        output: str = self.args.output or ""
        return os.path.join(output, os.path.basename(name)) if output != "-" and os.path.isdir(output) else output

    def keep(self, done: Refinement, output: str) -> None:
        """Write a refined prompt to its file, if there is one.

        Raises:
            InvalidInput: It can't be written, or would undo a change of the file. The sentence tells how to get the
                result.
        """
        if not output or (self.args.in_place and not done.changed):
            return
        if done.would_undo(output):
            # The same call with the changed file would be another one, so that its request_id wouldn't help.
            kept = done.after.put_aside()
            raise InvalidInput(f"{output} was changed in the meantime, and stays as it is. The refined prompt: {kept}")
        try:
            self.write(done, output)
        except InvalidInput as failure:
            again = f"To get the refined prompt again, use --request-id {done.answer.request_id}."
            raise InvalidInput(f"{failure} {again}") from None

    def write(self, done: Refinement, output: str) -> None:
        """Write a refined prompt to a file, and say so if the file's own comments couldn't be kept.

        Raises:
            InvalidInput: It can't be written.
        """
        done.after.write(output)
        if done.after.lost_comments:
            name = streams.shown(done.before.name)
            streams.note(f"warning: The comments and the layout of {name} could not be kept.")

    def in_words(self, failure: AgentaError) -> str:
        """Return the sentence for a failure, in the words of the command line."""
        return exits.as_options(exits.in_words(failure, self._how.given, self._how.names))

    def warn(self, answer: RefinedPrompt | RefinedWithCases) -> None:
        """Write the warnings of an answer."""
        for warning in answer.meta.warnings:
            streams.note(f"warning: {warning}")
