"""What the parts share while they are built: what to start, what to close, and what is wrong with the settings."""

from __future__ import annotations

from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import TracebackType

    from pydantic import SecretStr

Value = TypeVar("Value")


class MissingSetting(Exception):
    """A part can't be built, because a setting is missing that the settings' own checks ask for."""


class Resources:
    """Starts parts in the order in which they were built, and closes them in the opposite order.

    Building opens nothing, so that all faults of all parts are found before anything starts.

    Args:
        faults: What is known to be wrong with the settings.

    Attributes:
        faults: What is wrong with the settings, and with the files that they name: a sentence for each.
    """

    def __init__(self, faults: Iterable[str] = ()) -> None:
        self.faults = list(faults)
        self._starting: list[Callable[[], Awaitable[object]]] = []
        self._closing = AsyncExitStack()

    def on_start(self, start: Callable[[], Awaitable[object]]) -> None:
        """Await this when the service starts, before the listener opens."""
        self._starting.append(start)

    def on_close(self, close: Callable[[], Awaitable[object]]) -> None:
        """Await this when the service has stopped."""
        self._closing.push_async_callback(close)

    @contextmanager
    def faults_of(self, setting: str) -> Iterator[None]:
        """Record a fault of the ``setting``, so that the faults of other settings are also found."""
        try:
            yield
        except MissingSetting:
            # The settings' own checks have said so, and named it.
            if not self.faults:
                raise
        except ValueError as error:
            self._note(f"{setting}: {str(error).rstrip('.')}.")
        except ModuleNotFoundError as error:
            extra = "tracing" if setting.startswith("OTEL_") else "redis"
            how = f"Install the extra '{extra}': in a clone, pip install '.[{extra}]'."
            self._note(f"{setting}: needs {error.name}. {how}")

    def _note(self, fault: str) -> None:
        # Two parts may use the same setting.
        if fault not in self.faults:
            self.faults.append(fault)

    async def start(self) -> None:
        """Start what was built.

        Raises:
            SettingsError: With all faults that were found, before anything has started.
        """
        if self.faults:
            raise SettingsError(self.faults)
        for start in self._starting:
            await start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.__aexit__(kind, error, trace)


def given(value: Value | None) -> Value:
    """Return what the settings' own checks ask for.

    Raises:
        MissingSetting: It is missing; the checks have reported it.
    """
    if value is None:
        raise MissingSetting
    return value


def secret(value: SecretStr | None) -> str | None:
    """Return the text of a secret setting; ``None`` if it isn't set."""
    return value.get_secret_value() if value else None
