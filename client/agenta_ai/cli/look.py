"""``status``, ``tools`` and ``whoami``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai import ServiceState
from agenta_ai.cli import exits, streams
from agenta_ai.cli.screen import Screen

if TYPE_CHECKING:
    import argparse

    from agenta_ai import ToolStatus
    from agenta_ai.cli.access import Access
    from agenta_ai.cli.running import Running

_WHAT_IT_MEANS = {
    ServiceState.DEGRADED: "Calls are failing because Agenta or the model behind it fails. Try again later.",
    ServiceState.DRAINING: "The server is shutting down. Send calls to another one.",
}


def status(args: argparse.Namespace, how: Access, _: Running) -> int:
    """Print the state of the service, and what the caller may use."""
    screen = Screen(args.color, quiet=args.quiet)
    with how.client() as client, screen.waiting("asking for the status"):
        found = client.status(timeout=args.timeout)
    if args.json:
        streams.print_json(found)
        return exits.OK
    since = f", since {found.start_time:%Y-%m-%d %H:%M:%S} UTC" if found.start_time else ""
    screen.say(f"{found.state.lower()}, version {found.server_version or 'unknown'}{since}")
    if found.state in _WHAT_IT_MEANS:
        screen.say(_WHAT_IT_MEANS[found.state])
    if not found.enabled:
        screen.say(f"not enabled; missing settings: {', '.join(found.missing_settings) or 'none named'}")
    for tool in found.tools:
        screen.say(f"{tool.tool.name}  {_allowance(tool)}")
    return exits.OK


def _allowance(status: ToolStatus) -> str:
    limit = status.rate_limit
    if limit is None:
        return "no limit"
    wait = f", next call in {limit.next_call_delay:.0f} s" if limit.next_call_delay else ""
    return f"{limit.remaining} of {limit.burst} calls left, {limit.refill_per_minute} more a minute{wait}"


def tools(args: argparse.Namespace, how: Access, _: Running) -> int:
    """Print the tools that the caller may call."""
    screen = Screen(args.color, quiet=args.quiet)
    with how.client() as client, screen.waiting("asking for the tools"):
        found = client.list_tools(timeout=args.timeout)
    if args.json:
        streams.print_json(found)
        return exits.OK
    for tool in found:
        screen.say(f"{tool.name}  {tool.title}".rstrip())
        for line in screen.wrapped(tool.description, "    "):
            screen.say(line)
    return exits.OK


def whoami(args: argparse.Namespace, how: Access, _: Running) -> int:
    """Print which server is called, and that it accepts the credentials."""
    screen = Screen(args.color, quiet=args.quiet)
    with how.client() as client, screen.waiting("asking the server"):
        found = client.status(timeout=args.timeout)
    facts = {
        "target": how.name,
        "address": how.address,
        "credentials": how.given,
        "project": how.credentials.get("project", ""),
        "tools": [tool.tool.name for tool in found.tools],
    }
    if args.json:
        streams.print_json(facts)
        return exits.OK
    screen.say(f"target       {f'{how.name}, {how.address}' if how.name else how.address}")
    screen.say(f"credentials  {f'{how.given}: accepted' if how.given else 'none, and none are required'}")
    if facts["project"]:
        screen.say(f"project      {facts['project']}")
    screen.say(f"tools        {', '.join(facts['tools']) or 'none'}")
    return exits.OK
