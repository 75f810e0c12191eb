"""Draws mcp_session.svg: a real session of an MCP client with the bridge, in front of a stand-in for Agenta.

The model's first answer loses the variables, so that the service asks it once more.
"""

import asyncio
import io
import json
import re
import sys
from pathlib import Path

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from rich.console import Console
from rich.text import Text

from agenta_ai import diff_messages
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.testing import run_service

PICTURE = Path(__file__).with_suffix(".svg")
TEMPLATE = {
    "messages": [
        {"role": "system", "content": "You are a support agent of {{company}}. Please answer in {{language}}."},
        {"role": "user", "content": "{{question}}"},
    ]
}
ANSWER = json.dumps(
    {
        "messages": [
            {"role": "system", "content": "You are a support agent of {{company}}. Answer in {{language}}, briefly."},
            {"role": "user", "content": "{{question}}"},
        ],
        "summary": "Shorter.",
    }
)
# Wide enough apart to be reported one by one: there are ten reports a second at most.
SECONDS = 0.5
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def session(screen: Console, target: str) -> None:
    def say(who: str, what: str, style: str) -> None:
        screen.print(Text.assemble((f"{who:>7} ", "dim"), (what, style)))

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        say("", f"notifications/progress  {progress:g}  {message}", "cyan")

    run = StdioServerParameters(command=sys.executable, args=["-m", "agenta_ai.cli", "mcp", "--target", target])
    async with Client(stdio_client(run)) as client:
        say("server", f"agenta-ai mcp, revision {client.protocol_version}", "bold")
        say("client", "tools/list", "green")
        tool = (await client.list_tools()).tools[0]
        say("", f"{tool.name}: {tool.title}", "")
        say("client", 'tools/call  {"guidelines": "Be brief.", "prompt_template_json": …}', "green")
        arguments = {"guidelines": "Be brief.", "prompt_template_json": json.dumps(TEMPLATE)}
        result = await client.call_tool(tool.name, arguments, progress_callback=on_progress)
    assert not result.is_error, result
    colors = {"+": "green", "-": "red", "@": "cyan"}
    for change in diff_messages(TEMPLATE["messages"], result.structured_content["messages"]):
        for line in change.lines():
            say("", line, colors.get(line[0], ""))


def main() -> None:
    screen = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    standin = StandIn(respond=in_turn(Fault(delay=SECONDS, answer="lossy"), Fault(delay=SECONDS, text=ANSWER)))
    with run_service({"AGENTA_AI_GRPC_REPAIRS": "1"}, standin=standin) as service:
        asyncio.run(session(screen, service.address))
    drawn = screen.export_svg(title="An MCP client", unique_id="mcp")
    # Pictures in a page load no fonts from elsewhere.
    PICTURE.write_text("".join(f"{line.rstrip()}\n" for line in FONT.sub("", drawn).splitlines()))
    sys.stdout.write(f"Wrote {PICTURE}.\n")


if __name__ == "__main__":
    main()
