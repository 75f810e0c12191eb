"""``POST /services/<kind>/run``: in all releases of Agenta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.agenta.routes.reply import encoded, parsed, reply, text_of

if TYPE_CHECKING:
    from agenta_ai_server.agenta.completion_service import Kind
    from agenta_ai_server.agenta.http import HttpResponse
    from agenta_ai_server.agenta.routes.reply import PromptRun, Reply


class RunRoute:
    """The route's codec.

    Args:
        kind: The type of the applications that it runs.
    """

    def __init__(self, kind: Kind) -> None:
        self.path = f"{kind}/run"
        self._is_chat = kind == "chat"

    def encode(self, run: PromptRun) -> bytes:
        """Return the body of the request."""
        inputs = dict(run.inputs)
        # This route knows the messages of a chat by a key of their own, and leaves out any among the inputs.
        messages = {"messages": inputs.pop("messages", [])} if self._is_chat else {}
        return encoded({"inputs": inputs, **messages, "environment": run.environment, "app": run.app})

    def decode(self, response: HttpResponse) -> Reply:
        """Return what the response says."""
        document = parsed(response)
        output = document.get("data")
        return reply(
            response,
            document,
            has_output="data" in document,
            output=text_of(output) if self._is_chat else output,
        )
