"""A client of MCP that refines a prompt and shows the progress. Needs the extra mcp, and a server: make run."""

import asyncio
import json
import os
from pathlib import Path

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

TEMPLATE = (Path(__file__).parent / "support_agent.json").read_text()
BRIDGE = StdioServerParameters(command="agenta-ai", args=["mcp"], env=dict(os.environ))


async def show(progress: float, total: float | None, message: str | None) -> None:
    print(message)


async def main() -> None:
    async with Client(stdio_client(BRIDGE)) as client:
        for tool in (await client.list_tools()).tools:
            print(f"{tool.name}: {tool.title}")
        arguments = {"prompt_template_json": TEMPLATE, "guidelines": "Be brief."}
        result = await client.call_tool("tools.agenta.api.refine_prompt", arguments, progress_callback=show)
        if result.is_error:
            print(result.content[0].text)
            return
        for message in result.structured_content["messages"]:
            print(json.dumps(message, indent=2))
        print(result.structured_content["summary"])


asyncio.run(main())
