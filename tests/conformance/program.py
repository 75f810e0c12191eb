"""Drives a client program over the line protocol."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

# A line holds a whole message, and the largest are beyond a megabyte.
MAX_LINE_BYTES = 64 << 20
# How long a program may take to end by itself when there are no more calls.
END_SECONDS = 20.0
LAST_LINES = 20


class ProgramError(Exception):
    """The program didn't answer as the protocol has it. It can't be asked again."""


class Program:
    """One client program, which makes one call at a time.

    Args:
        command: Its path and arguments.
        folder: Where it runs.

    Attributes:
        asked: Whether it has been asked yet.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.asked = False
        self._command = command
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=LAST_LINES)
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> Self:
        # Calls to this machine must not end up at a proxy.
        environment = {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "GRPC_VERBOSITY": "NONE"}
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._folder,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=MAX_LINE_BYTES,
        )
        self._listening = asyncio.create_task(self._listen(self._process.stderr))
        return self

    async def ask(self, call: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Have it make a call, and return what it reports.

        Raises:
            ProgramError: It wrote nothing in time, or something else than the result of this call.
        """
        process = self._process
        assert process
        assert process.stdin
        assert process.stdout
        self.asked = True
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(json.dumps(call).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            raise ProgramError(self._with_last_words(f"the program wrote nothing within {seconds:g} seconds")) from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            code = await process.wait()
            raise ProgramError(self._with_last_words(f"the program ended with code {code} in place of an answer"))
        return _result(line, call["id"])

    async def stop(self) -> str:
        """End it, and return what was wrong with its end: nothing, if it ended by itself and with code 0."""
        process = self._process
        assert process
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                rest = await process.stdout.read()
                code = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            return self._with_last_words(f"the program didn't end within {END_SECONDS:g} seconds after its input")
        finally:
            await self._end_of_words()
        if rest:
            return f"the program wrote more than it was asked: {rest[:200]!r}"
        return self._with_last_words(f"the program ended with code {code}") if code else ""

    async def kill(self) -> None:
        """End it at once."""
        assert self._process
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._end_of_words()

    async def _listen(self, errors: asyncio.StreamReader | None) -> None:
        assert errors
        async for line in errors:
            self._said.append(line.decode(errors="replace").rstrip())

    async def _end_of_words(self) -> None:
        assert self._listening
        await asyncio.wait([self._listening], timeout=1)
        self._listening.cancel()

    def _with_last_words(self, fault: str) -> str:
        return "\n".join([fault, *(f"  stderr: {line}" for line in self._said)])


class Pool:
    """Programs of one client, handed out to vectors. A vector that needs two gets both at once.

    Args:
        command: The path and arguments of a program.
        folder: Where it runs.
        programs: How many there are at most.
    """

    def __init__(self, command: Sequence[str], folder: Path, programs: int) -> None:
        self._command = command
        self._folder = folder
        self._free: list[Program] = []
        self._places = programs
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, number: int) -> AsyncIterator[list[Program]]:
        """So many programs, new ones in place of those that broke the protocol."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._places >= number)
            self._places -= number
            taken = [self._free.pop() for _ in range(min(number, len(self._free)))]
        try:
            while len(taken) < number:
                taken.append(await Program(self._command, self._folder).start())
            yield taken
        except BaseException:
            await asyncio.gather(*(program.kill() for program in taken))
            taken = []
            raise
        finally:
            async with self._changed:
                self._free += taken
                self._places += number
                self._changed.notify_all()

    async def stop(self) -> list[str]:
        """End all programs, and return what was wrong with their ends."""
        faults = await asyncio.gather(*(program.stop() for program in self._free))
        return sorted(set(filter(None, faults)))


def _result(line: bytes, asked: str) -> dict[str, Any]:
    try:
        result = json.loads(line)
    except ValueError:
        raise ProgramError(f"the program wrote no JSON: {line[:200]!r}") from None
    if not isinstance(result, dict) or result.get("id") != asked:
        raise ProgramError(f"the program wrote something else than the result of {asked}: {line[:200]!r}")
    return result
