"""The tool on an MCP server over stateless HTTP, with answers of JSON and no credentials.

``python -m bench.peers.mcp sdk`` is the official SDK's server, ``fastmcp`` that of FastMCP.
"""

from __future__ import annotations

import sys
from typing import Any

import httpx
from bench.peers.hosting import on_uvicorn
from bench.peers.work import LIMITS, NAME, TIMEOUT, Arguments, Refined, refine
from fastmcp import FastMCP
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

client = httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS)


async def refine_prompt(
    prompt_template_json: str, guidelines: str | None = None, context: str | None = None
) -> Refined:
    """Rewrites the texts of a prompt template so that a model follows them better, following the guidelines."""
    arguments = Arguments(prompt_template_json=prompt_template_json, guidelines=guidelines, context=context)
    answer = await refine(client, arguments)
    if answer.structuredContent is None:
        raise ToolError(answer.content[0].text)
    return answer.structuredContent


def with_sdk() -> Any:
    server = MCPServer("agenta", log_level="WARNING")
    server.add_tool(refine_prompt, name=NAME)
    return server.streamable_http_app(stateless_http=True, json_response=True)


def with_fastmcp() -> Any:
    server = FastMCP("agenta")
    server.tool(refine_prompt, name=NAME)
    return server.http_app(stateless_http=True, json_response=True)


if __name__ == "__main__":
    on_uvicorn(with_sdk() if sys.argv[1] == "sdk" else with_fastmcp())
