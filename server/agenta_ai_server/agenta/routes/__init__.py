"""The routes by which Agenta runs a prompt, each as a codec that knows neither transport nor failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agenta_ai_server.agenta.routes.invoke import InvokeRoute
from agenta_ai_server.agenta.routes.run import RunRoute

if TYPE_CHECKING:
    from agenta_ai_server.agenta.http import HttpResponse
    from agenta_ai_server.agenta.routes.reply import PromptRun, Reply

__all__ = ["CHAT_INVOKE", "CHAT_RUN", "INVOKE", "RUN", "Route"]


class Route(Protocol):
    """One way to run a prompt.

    Attributes:
        path: Below Agenta's ``/services/``.
    """

    path: str

    def encode(self, run: PromptRun) -> bytes:
        """Return the body of the request, JSON."""

    def decode(self, response: HttpResponse) -> Reply:
        """Return what the response says. Any response can be read, even if it isn't Agenta's."""


INVOKE: Route = InvokeRoute("completion")
"""Since Agenta v0.96.0. The caller's trace continues in Agenta."""
RUN: Route = RunRoute("completion")
"""In all releases; since v0.96.1 an adapter in front of the other."""
CHAT_INVOKE: Route = InvokeRoute("chat")
"""As INVOKE, for chat applications."""
CHAT_RUN: Route = RunRoute("chat")
"""As RUN, for chat applications."""
