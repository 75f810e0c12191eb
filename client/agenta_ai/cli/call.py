"""``call``: any tool by its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from agenta_ai import AgentaError, CallFailed, InvalidInput, ToolFailed
from agenta_ai.cli import exits, streams
from agenta_ai.cli.screen import Screen

if TYPE_CHECKING:
    import argparse

    from agenta_ai import SyncClient, ToolResult
    from agenta_ai.cli.access import Access
    from agenta_ai.cli.running import Running

_SECONDS_FOR_ADVICE = 5


def call(args: argparse.Namespace, how: Access, running: Running) -> int:
    """Call a tool, and print its result."""
    with how.client(wait_for_limit=args.wait, retries=args.retries) as client:
        result = _called(client, args, running)
    if args.json:
        streams.print_json(result)
    elif not result.is_error:
        _print_result(result)
    for warning in result.meta.warnings:
        streams.note(f"warning: {warning}")
    try:
        result.raise_for_error()
    except ToolFailed as failure:  # caught here, because its JSON is printed already
        return exits.complain(exits.in_words(failure, "", {}), exits.TOOL_FAILED)
    return exits.OK


def _called(client: SyncClient, args: argparse.Namespace, running: Running) -> ToolResult:
    arguments = _arguments(_text(args.args))
    request_id = str(uuid4()) if args.request_id is None else args.request_id
    screen = Screen(args.color, quiet=args.quiet)
    try:
        with screen.waiting("calling the tool") as on_progress, running.call(request_id):
            return client.call_tool(
                args.name,
                arguments,
                request_id=request_id,
                timeout=args.timeout,
                rerun_if_outcome_unknown=args.rerun_if_outcome_unknown,
                on_progress=on_progress,
            )
    except CallFailed as failure:
        if failure.reason == "TOOL_NOT_FOUND":
            failure.args = (f"There is no tool {args.name}. {_meant(client, args.name)}",)
        raise


def _print_result(result: ToolResult) -> None:
    if result.structured_content is not None:
        streams.print_json(result.structured_content)
    elif result.text or not result.content:
        streams.say_text(result.text)
    else:  # pictures, sounds and links
        streams.print_json(result.content)


def _text(given: str) -> str:
    if given == "-":
        return streams.read_text("-")[0]
    return streams.read_text(given[1:])[0] if given.startswith("@") else given


def _arguments(text: str) -> dict[str, Any]:
    try:
        if not text.strip():
            raise ValueError("they are empty")
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The arguments are not JSON: {error}.") from None
    if not isinstance(arguments, dict):
        raise InvalidInput('The arguments are not a JSON object. They should look like {"name": "value"}.')
    return arguments


def _meant(client: SyncClient, name: str) -> str:
    from difflib import get_close_matches

    try:
        known = [tool.name for tool in client.list_tools(timeout=_SECONDS_FOR_ADVICE)]
    except AgentaError:
        known = []
    close = get_close_matches(name, known, 1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else "Run agenta-ai tools to list them."
