"""Replicas as an operator runs them: real processes, on one port or each on its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import psutil
from addresses import free_address

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator

    from agenta_ai_server.standin.app import StandIn

PROGRAM = "import sys; from agenta_ai_server.cli import main; sys.exit(main())"
LISTENING = re.compile(r"listening on ([0-9.]+:[0-9]+)")
# For a machine that is busy with other tests.
PATIENCE = 60
# So that a replica counts and remembers exactly, however late Redis answers on such a machine. For its prelude.
WAITS_FOR_REDIS = """
from agenta_ai_server.redis.client import RedisClient
RedisClient.__init__.__kwdefaults__["timeout"] = 10
"""


class Replica:
    """One ``agenta-ai-server serve``.

    Args:
        arguments: What follows ``serve``.
        prelude: What the process does to itself first, in Python.
        environment: Its settings.

    Attributes:
        address: Where it listens.
        log: The lines that it has written so far.
        process: The process.
    """

    def __init__(self, *arguments: str, prelude: str = "", **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTA_AI_")}
        self._command = [sys.executable, "-c", f"{prelude}\n{PROGRAM}", "serve", *arguments]
        self._environment = kept | environment
        self._line = asyncio.Condition()
        self.address = ""
        self.log: list[str] = []

    async def start(self) -> None:
        """Start, and return when it listens."""
        await self.spawn()
        found = LISTENING.search(await self.says("listening on "))
        assert found
        self.address = found[1]

    async def spawn(self) -> None:
        """Start."""
        self.process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stderr=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            async with self._line:
                self.log.append(line.decode().rstrip())
                self._line.notify_all()

    async def says(self, words: str) -> str:
        """Wait for a line with these words, which may have come already."""
        async with asyncio.timeout(PATIENCE), self._line:
            while not (found := self.said(words)):
                await self._line.wait()
        return found[0]

    def said(self, words: str) -> list[str]:
        """The lines with these words."""
        return [line for line in self.log if words in line]

    def peers(self) -> set[int]:
        """The ports of those who are connected to it."""
        port = int(self.address.rpartition(":")[2])
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        return {each.raddr.port for each in connections if each.raddr and each.laddr.port == port}

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end, and return how it ended."""
        async with asyncio.timeout(PATIENCE):
            await self._reading
            return await self.process.wait()

    async def aclose(self) -> None:
        """Leave nothing of it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()


class Replicas:
    """Makes replicas before one stand-in, and kills those that a test leaves running.

    Args:
        standin: Is Agenta.
        prelude: As for :class:`Replica`.
        settings: What they have in common.
    """

    def __init__(self, standin: StandIn, *, prelude: str = "", **settings: str) -> None:
        self._prelude = prelude
        self._settings = {
            "AGENTA_AI_SERVICES_API_URL": standin.url,
            "AGENTA_AI_SERVICES_API_KEY": "standin-key",
            "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
            "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": "ai-refine",
            "AGENTA_AI_GRPC_AUTH": "none",
            "AGENTA_AI_GRPC_LIMITS": "off",
            "AGENTA_AI_GRPC_LOG_FORMAT": "text",
            **settings,
        }
        self._all = AsyncExitStack()

    async def make(self, *arguments: str, **settings: str) -> Replica:
        """One that is listening."""
        replica = self._new(*arguments, **settings)
        await replica.start()
        return replica

    async def spawn(self, *arguments: str, **settings: str) -> Replica:
        """One that may fail to listen."""
        replica = self._new(*arguments, **settings)
        await replica.spawn()
        return replica

    async def each_on_its_port(self, count: int) -> list[Replica]:
        """So many of them."""
        return list(await asyncio.gather(*(self.make() for _ in range(count))))

    async def on_one_port(self, count: int) -> list[Replica]:
        """So many of them, which share a port."""
        first = await self.make("--reuse-port")
        others = (self.make("--reuse-port", AGENTA_AI_GRPC_LISTEN=first.address) for _ in range(count - 1))
        return [first, *await asyncio.gather(*others)]

    def _new(self, *arguments: str, **settings: str) -> Replica:
        # A replica that takes the place of one that was killed listens on the same address.
        own = {"prelude": self._prelude, "AGENTA_AI_GRPC_LISTEN": free_address()}
        replica = Replica(*arguments, **own | self._settings | settings)
        self._all.push_async_callback(replica.aclose)
        return replica

    async def aclose(self) -> None:
        """Kill them."""
        await self._all.aclose()


@asynccontextmanager
async def replicas(standin: StandIn, *, prelude: str = "", **settings: str) -> AsyncIterator[Replicas]:
    """Replicas with these settings, for as long as the context lasts."""
    made = Replicas(standin, prelude=prelude, **settings)
    try:
        yield made
    finally:
        await made.aclose()
