"""Version 1 of the Python SDK: python python_1.py REVISION URL, or REVISION COMMAND ARGUMENTS…"""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager

from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client

TEMPLATE = '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}'


@asynccontextmanager
async def streams(first, *rest):
    if first.startswith("http"):
        async with streamablehttp_client(first) as (read, write, _):
            yield read, write
    else:
        async with stdio_client(StdioServerParameters(command=first, args=rest, env=dict(os.environ))) as both:
            yield both


async def main(_, *server):
    progress = []

    async def on_progress(done, total, message):
        progress.append(message)

    async with streams(*server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        name = tools[0].name
        refined = await session.call_tool(name, {"prompt_template_json": TEMPLATE}, progress_callback=on_progress)
        wrong = await session.call_tool(name, {"prompt_template_json": 3})
        try:
            unknown = await session.call_tool("tools.no.such.tool", {})
        except McpError as error:
            unknown = error.error.code
    report = {
        "tools": [tool.name for tool in tools],
        "progress": progress,
        "messages": refined.structuredContent["messages"],
        "wrong": [wrong.isError, wrong.content[0].text],
        "unknown": unknown,
    }
    print(json.dumps(report))


asyncio.run(main(*sys.argv[1:]))
