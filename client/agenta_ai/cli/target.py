"""``target``: names for servers, with the credentials for each."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from agenta_ai.cli import exits, saved, streams

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> int:
    """Run one of the actions."""
    targets = saved.load()
    {"add": _add, "use": _use, "remove": _remove, "list": _list}[args.action](args, targets)
    return exits.OK


def _add(args: argparse.Namespace, targets: saved.Targets) -> None:
    from agenta_ai.targets import resolve

    name = saved.check_name(args.name)
    resolve(args.address)  # check before the user types a key in vain
    api_key, token = _secrets(args)
    target = saved.Target(
        address=args.address,
        tls=args.tls,
        ca=os.path.abspath(args.ca) if args.ca else "",
        api_key=api_key,
        token=token,
        project=args.project,
    )
    _check(target)
    targets.targets[name] = target
    targets.current = targets.current or name
    saved.save(targets)
    used = (
        "used by default" if targets.current == name else f"use it with --target {name}, or agenta-ai target use {name}"
    )
    streams.say(f"Added {name}, {target.address}; credentials: {target.credential}; {used}.")


def _secrets(args: argparse.Namespace) -> tuple[str, str]:
    """Return the API key and the token; each is empty if there is none."""
    if args.token_file:
        return "", streams.read_text(args.token_file)[0].strip()
    if args.api_key_file:
        return streams.read_text(args.api_key_file)[0].strip(), ""
    if args.no_credentials or not streams.is_terminal(sys.stdin):
        return "", ""
    from getpass import getpass

    return getpass("API key, not shown (Enter for none): ").strip(), ""


def _check(target: saved.Target) -> None:
    """Check a target when it is added, so that the user learns of a fault at once."""
    from agenta_ai.connection import connection

    connection(
        target.address,
        tls=True if target.ca and target.tls is None else target.tls,
        api_key=target.api_key or None,
        token=target.token or None,
        project=target.project or None,
    )


def _use(args: argparse.Namespace, targets: saved.Targets) -> None:
    saved.find(targets, args.name)
    targets.current = args.name
    saved.save(targets)
    streams.say(f"Using {args.name}, {targets.targets[args.name].address}.")


def _remove(args: argparse.Namespace, targets: saved.Targets) -> None:
    saved.find(targets, args.name)
    del targets.targets[args.name]
    if targets.current == args.name:
        targets.current = ""
    saved.save(targets)
    streams.say(f"Removed {args.name}.")


def _list(args: argparse.Namespace, targets: saved.Targets) -> None:
    rows = [
        {"name": name, "address": each.address, "credentials": each.credential, "current": name == targets.current}
        for name, each in sorted(targets.targets.items())
    ]
    if args.json:
        streams.print_json(rows)
        return
    if not rows:
        streams.say("There are no targets. Add one: agenta-ai target add NAME HOST:PORT")
    for row in rows:
        streams.say(f"{'*' if row['current'] else ' '} {row['name']}  {row['address']}  {row['credentials']}")
