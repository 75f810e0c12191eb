"""``mcp config``: what to paste into the settings of an MCP client."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from agenta_ai.cli import exits, saved, streams

if TYPE_CHECKING:
    import argparse

# Where each client keeps its servers. A program that isn't here takes what Cursor takes, as a rule.
FILES = {
    "claude": ".mcp.json of a project for Claude Code, or claude_desktop_config.json of Claude Desktop",
    "cursor": "~/.cursor/mcp.json, or .cursor/mcp.json of a project",
    "vscode": ".vscode/mcp.json of a project",
}
_KEY = "AGENTA_AI_API_KEY"


def run(args: argparse.Namespace) -> int:
    """Print the lines, without a secret in them."""
    streams.note(f"Paste this into {FILES[args.client]}:")
    streams.print_json(_settings(args, _server(args)))
    if not _target(args):
        desktop = " Claude Desktop can't: it needs a target." if args.client == "claude" else ""
        streams.note(f"It passes {_KEY} on.{desktop} To save the key instead, run: agenta-ai target add")
    return exits.OK


def _settings(args: argparse.Namespace, server: dict[str, Any]) -> dict[str, Any]:
    if args.client != "vscode":
        return {"mcpServers": {"agenta-ai": server}}
    settings: dict[str, Any] = {"servers": {"agenta-ai": {"type": "stdio", **server}}}
    if "env" in server:
        asked = {"type": "promptString", "id": "agenta-ai-key", "description": "API key of Agenta AI", "password": True}
        settings["inputs"] = [asked]
    return settings


def _server(args: argparse.Namespace) -> dict[str, Any]:
    # Programs with windows often have another PATH than the shell.
    command = shutil.which(sys.argv[0]) or shutil.which("agenta-ai") or "agenta-ai"
    target = _target(args)
    words = [
        "mcp",
        *(["--target", target] if target else []),
        *(["--names", args.names] if args.names != "dots" else []),
    ]
    server: dict[str, Any] = {"command": os.path.abspath(command), "args": words}
    if not target or ":" in target:
        key = {"vscode": "${input:agenta-ai-key}", "cursor": f"${{env:{_KEY}}}", "claude": f"${{{_KEY}}}"}[args.client]
        server["env"] = {_KEY: key}
    return server


def _target(args: argparse.Namespace) -> str:
    """Return the target to name: programs don't share the shell's variables. Empty for this machine's own server."""
    target: str = args.target or os.environ.get("AGENTA_AI_TARGET") or saved.load().current
    return target
