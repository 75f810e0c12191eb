"""What somebody writes who has installed the package. Each line that mypy must complain of says so."""

from agenta_ai import Client, RefinedPrompt, SyncClient, ToolFailed
from agenta_ai.v1 import error_pb2, tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceServicer


def refine(template: dict[str, object]) -> str:
    with SyncClient("127.0.0.1:50051", timeout=30) as client:
        try:
            refined: RefinedPrompt = client.refine_prompt(template, guidelines="Be brief.")
        except ToolFailed as failed:
            return failed.reason
        client.refine_prompt(7)  # error: arg-type
        return refined.template  # error: return-value


async def states() -> list[str]:
    async with Client("127.0.0.1:50051") as client:
        status = await client.status()
        await client.call_tool("tools.a.b.c")  # error: call-arg
        return [status.state, status.server_version, status.start_time]  # error: list-item


def request() -> tool_service_pb2.CallToolRequest:
    made = tool_service_pb2.CallToolRequest(name="tools.a.b.c", request_id="")
    made.arguments.update({"a": 1})
    made.name = 7  # error: assignment
    made.nmae = ""  # error: attr-defined
    tool_service_pb2.CallToolRequest(nme="")  # error: call-arg
    return made


def reason(error: error_pb2.ToolError) -> str:
    name: str = error_pb2.ErrorReason.Name(error.reason)
    return name if error.reason != error_pb2.ERROR_REASON_RATE_LIMITED else error.retryable  # error: return-value


class Service(ToolServiceServicer):
    ListTools = 7  # error: assignment
