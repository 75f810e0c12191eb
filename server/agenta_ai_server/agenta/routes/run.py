"""``POST /services/completion/run``: in all releases of Agenta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.agenta.routes.reply import encoded, parsed, reply

if TYPE_CHECKING:
    from agenta_ai_server.agenta.http import HttpResponse
    from agenta_ai_server.agenta.routes.reply import Prompt, Reply


class Run:
    """The route's codec."""

    path = "completion/run"

    def encode(self, prompt: Prompt) -> bytes:
        """Return the body of the request."""
        return encoded({"inputs": dict(prompt.inputs), "environment": prompt.environment, "app": prompt.app})

    def decode(self, response: HttpResponse) -> Reply:
        """Return what the response says."""
        document = parsed(response)
        return reply(response, document, has_output="data" in document, output=document.get("data"))
