"""``mcp``: the tools of the service for clients of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from agenta_ai import Client
from agenta_ai.cli import exits, streams
from agenta_ai.errors import InvalidInput

if TYPE_CHECKING:
    import argparse

    from agenta_ai.cli.access import Access
    from agenta_ai.cli.running import Running


def mcp(args: argparse.Namespace, how: Access, _: Running) -> int:
    """Serve MCP over standard input and output, or over HTTP."""
    if find_spec("mcp_types") is None:  # which version 1 of the SDK doesn't have
        raise InvalidInput(
            "agenta-ai mcp needs the MCP SDK, version 2. Install the extra 'mcp': in a clone, pip install '.[mcp]'."
        )
    _check_options(args)
    if args.listen:
        asyncio.run(_over_http(args, how))
    else:
        if sys.stdin is None:
            raise InvalidInput("Cannot read standard input: it is closed.")
        _end_at_control_c()
        asyncio.run(_over_stdio(args, how))
    return exits.OK


def _end_at_control_c() -> None:
    # Otherwise asyncio would cancel the session and wait for the SDK's thread, which reads standard input until its
    # end. A signal that is ignored, as in the background of a shell, stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _check_options(args: argparse.Namespace) -> None:
    only_http = {
        "--listen-cert": args.listen_cert,
        "--listen-key": args.listen_key,
        "--behind-tls-proxy": args.behind_tls_proxy,
        "--host": args.host,
        "--origin": args.origin,
        "--resource": args.resource,
        "--issuer": args.issuer,
    }
    if not args.listen and (given := [option for option, value in only_http.items() if value]):
        raise InvalidInput(f"{given[0]}: applies only to HTTP. Pass --listen, too.")
    if bool(args.listen_cert) != bool(args.listen_key):
        raise InvalidInput("--listen-cert and --listen-key belong together. Give both.")


async def _over_stdio(args: argparse.Namespace, how: Access) -> None:
    from agenta_ai.mcp import stdio
    from agenta_ai.mcp.names import Names

    arguments: dict[str, Any] = dict(how.credentials)
    async with Client(how.address, tls=how.tls, **arguments) as client:
        await stdio.serve(client, Names(args.names == "underscore"), args.timeout)


async def _over_http(args: argparse.Namespace, how: Access) -> None:
    from agenta_ai.connection import connection
    from agenta_ai.mcp import http, listening
    from agenta_ai.mcp.names import Names

    where = listening.address(args.listen)
    tls = (args.listen_cert, args.listen_key) if args.listen_cert else None
    access = http.Access(args.host, args.origin, args.resource, args.issuer, needs_credentials=not where.is_loopback)
    connection(how.address, tls=how.tls).check_credentials("--listen")
    if how.credentials:
        streams.note(
            "agenta-ai: with --listen, each request carries its own credentials; the credentials of this command are "
            "not used."
        )
    async with (
        # With one connection each, gRPC would let both share it: new callers would wait for the calls of others.
        Client(how.address, tls=how.tls, connections=2) as client,
        Client(how.address, tls=how.tls, retries=0) as asking,
    ):
        await listening.check_exposure(where, asking, encrypted=bool(tls or args.behind_tls_proxy))
        application = http.app(client, asking, Names(args.names == "underscore"), access, args.timeout)
        with where.bind() as listener:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            streams.note(f"agenta-ai: listening on {'https' if tls else 'http'}://{shown}{http.PATH}")
            await http.serve(application, listener, tls)
