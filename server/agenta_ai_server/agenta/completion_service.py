"""The completion service as the tools see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from agenta_ai_server.domain.record import record
from agenta_ai_server.domain.tool import service_disabled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.domain.call import AgentaCredential
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Attempt, Json

Kind: TypeAlias = Literal["completion", "chat"]


@dataclass(frozen=True, slots=True)
class DeployedPrompt:
    """The prompt to run.

    Attributes:
        application: Slug of the application that holds it.
        environment: Slug of the environment that it is deployed to; empty for the service's own.
        kind: The type of the application. A chat application takes an input ``messages``, a list of messages, besides
            its variables.
    """

    application: str
    environment: str = ""
    kind: Kind = "completion"


@dataclass(frozen=True, slots=True)
class InlinePrompt:
    """A prompt that isn't deployed, and is sent with each run.

    Attributes:
        parameters: As Agenta's completion applications have them, ``{"prompt": {"messages": [...], ...}}``.
        credential: Whose project and models it is run with; ``None`` for this server's own key.
    """

    parameters: Mapping[str, Json]
    credential: AgentaCredential | None = None


AnyPrompt: TypeAlias = DeployedPrompt | InlinePrompt


@record
class Completion:
    """What the model wrote.

    Attributes:
        text: As the model wrote it.
        attempt: The request that returned it.
        earlier: The requests before it, which failed, in their order.
    """

    text: str
    attempt: Attempt
    earlier: tuple[Attempt, ...] = ()

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All requests that were sent, in their order."""
        return (*self.earlier, self.attempt)


class CompletionService(Protocol):
    """Runs prompts in Agenta."""

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        """Run one prompt, and return the model's text. A cancelled call closes its connection.

        Args:
            prompt: Which one.
            inputs: The prompt's variables, texts as a rule: Agenta puts other values in as JSON.
            call: The tool call, which has the deadline and the waiting callers.

        Raises:
            Refused: DEADLINE_TOO_SHORT or UPSTREAM_CIRCUIT_OPEN, before anything was sent.
            UpstreamFailed: No completion, for one of the ``UPSTREAM_`` reasons.
        """
        ...


class Unconfigured:
    """Replaces the completion service if the settings that it needs are missing."""

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        """Refuse.

        Raises:
            Refused: SERVICE_DISABLED.
        """
        raise service_disabled()
