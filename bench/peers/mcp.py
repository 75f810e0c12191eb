"""The tool on an MCP server: the official SDK's FastMCP over stateless HTTP, answers of JSON, no credentials."""

from __future__ import annotations

import httpx
import uvicorn
from bench.peers.work import LIMITS, NAME, TIMEOUT, Arguments, Refined, refine
from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ToolError

client = httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS)


async def refine_prompt(
    prompt_template_json: str, guidelines: str | None = None, context: str | None = None
) -> Refined:
    """Rewrites the texts of a prompt template so that a model follows them better, by the guidelines given."""
    arguments = Arguments(prompt_template_json=prompt_template_json, guidelines=guidelines, context=context)
    answer = await refine(client, arguments)
    if answer.structuredContent is None:
        raise ToolError(answer.content[0].text)
    return answer.structuredContent


if __name__ == "__main__":
    server = FastMCP("agenta", stateless_http=True, json_response=True, log_level="WARNING")
    server.add_tool(refine_prompt, name=NAME)
    uvicorn.run(server.streamable_http_app(), port=0, backlog=4096)
