"""The servers of HTTP that the peers run on, each in this one process, so that what it uses is seen."""

from __future__ import annotations

import logging
import socket
from typing import Any

import uvicorn
import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server as Granian

BACKLOG = 4096


def on_uvicorn(app: Any) -> None:
    """Serve on a free port, which uvicorn logs."""
    uvicorn.run(app, port=0, backlog=BACKLOG, access_log=False)


def on_granian(app: Any) -> None:
    """Serve on a free port, which is logged here, since granian takes a number alone."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = Granian(app, port=port, interface=Interfaces.ASGI, backlog=BACKLOG, log_enabled=False)

    async def serve() -> None:
        logging.warning("listening on 127.0.0.1:%d", port)
        await server.serve()

    uvloop.run(serve())
