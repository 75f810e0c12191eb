"""``POST /services/<kind>/v0/invoke``: in Agenta since v0.96.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.agenta.routes.reply import encoded, parsed, reply, text_of

if TYPE_CHECKING:
    from agenta_ai_server.agenta.completion_service import Kind
    from agenta_ai_server.agenta.http import HttpResponse
    from agenta_ai_server.agenta.routes.reply import PromptRun, Reply


class InvokeRoute:
    """The route's codec.

    Args:
        kind: The type of the applications that it runs.
    """

    def __init__(self, kind: Kind) -> None:
        self.path = f"{kind}/v0/invoke"
        self._is_chat = kind == "chat"

    def encode(self, run: PromptRun) -> bytes:
        """Return the body of the request."""
        if run.parameters is not None:
            return encoded({"data": {"inputs": dict(run.inputs), "parameters": dict(run.parameters)}})
        references = {"application": {"slug": run.app}, "environment": {"slug": run.environment}}
        return encoded({"data": {"inputs": dict(run.inputs)}, "references": references})

    def decode(self, response: HttpResponse) -> Reply:
        """Return what the response says."""
        document = parsed(response)
        data = document.get("data")
        # A model that declined leaves "data" empty.
        output = data.get("outputs") if isinstance(data, dict) else None
        return reply(
            response,
            document,
            has_output=isinstance(data, dict),
            output=text_of(output) if self._is_chat else output,
        )
