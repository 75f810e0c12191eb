"""``POST /services/completion/v0/invoke``: in Agenta since v0.96.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.agenta.routes.reply import encoded, parsed, reply

if TYPE_CHECKING:
    from agenta_ai_server.agenta.http import HttpResponse
    from agenta_ai_server.agenta.routes.reply import Prompt, Reply


class Invoke:
    """The route's codec."""

    path = "completion/v0/invoke"

    def encode(self, prompt: Prompt) -> bytes:
        """Return the body of the request."""
        references = {"application": {"slug": prompt.app}, "environment": {"slug": prompt.environment}}
        return encoded({"data": {"inputs": dict(prompt.inputs)}, "references": references})

    def decode(self, response: HttpResponse) -> Reply:
        """Return what the response says."""
        document = parsed(response)
        data = document.get("data")
        # A model that declined leaves "data" empty.
        return reply(
            response,
            document,
            has_output=isinstance(data, dict),
            output=data.get("outputs") if isinstance(data, dict) else None,
        )
