"""A real Redis, to be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from addresses import free_port
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RedisServer:
    """One ``redis-server`` on a free port of loopback, which keeps nothing when it stops unless options say so."""

    def __init__(self, folder: Path, *options: str, scheme: str = "redis", port_option: str = "--port") -> None:
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}/0"
        self._command = [
            shutil.which("redis-server") or "redis-server",
            *("--bind", "127.0.0.1", port_option, str(self.port), "--dir", str(folder)),
            *("--save", "", "--enable-debug-command", "yes", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        # Up to a minute, on a machine that is busy.
        for _ in range(6_000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError("redis-server didn't start")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stand still; what is sent meanwhile is heard afterwards."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def do(self, *command: str | int) -> Any:
        with Redis.from_url(self.url) as client:
            return client.execute_command(*command)
