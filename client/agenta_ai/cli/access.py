"""The server and the credentials, from options, the environment and the named targets."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agenta_ai.cli import saved, streams

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    import grpc

    from agenta_ai import SyncClient

DEFAULT_TARGET = "127.0.0.1:50051"

# The variables with credentials, and the client's argument for each. Options would show in the list of processes.
CREDENTIALS = {"AGENTA_AI_API_KEY": "api_key", "AGENTA_AI_API_KEY_FILE": "api_key", "AGENTA_AI_TOKEN": "token"}


@dataclass(frozen=True)
class Access:
    """How to reach a server. ``repr()`` shows no secret.

    Attributes:
        name: Name of the target; empty if it has none.
        address: The server.
        tls: As the client wants it.
        given: The variable, option or target with the credential; empty if there is none.
        credentials: The client's arguments with the credential.
        names: Names of the command line by the client's arguments, for errors.
    """

    name: str
    address: str
    tls: bool | grpc.ChannelCredentials | None
    given: str
    credentials: Mapping[str, str] = field(repr=False)
    names: Mapping[str, str]

    def client(self, **options: Any) -> SyncClient:
        """Return a client of the server."""
        from agenta_ai import SyncClient

        arguments: dict[str, Any] = {**self.credentials, **options}
        return SyncClient(self.address, tls=self.tls, **arguments)


def access(args: argparse.Namespace) -> Access:
    """Return how to reach the server.

    Raises:
        InvalidInput: A file can't be read, or options, variables or targets don't fit together.
    """
    name, target = _target(args)
    given, credentials = _credentials(name, target)
    project = os.environ.get("AGENTA_AI_PROJECT") or target.project
    if project:
        credentials["project"] = project
    names = {
        **({argument: given for argument in ("api_key", "token") if given}),
        "project": "AGENTA_AI_PROJECT" if os.environ.get("AGENTA_AI_PROJECT") else f"The project of target {name}",
        "timeout": "--timeout",
        "retries": "--retries",
        "request_id": "--request-id",
    }
    tls = _tls(args, target)
    return Access(name, target.address, tls, given or ("--cert" if args.cert else ""), credentials, names)


def _target(args: argparse.Namespace) -> tuple[str, saved.Target]:
    """Return the name of the target, empty if it has none, and the target."""
    chosen = args.target or os.environ.get("AGENTA_AI_TARGET")
    if chosen and (":" in chosen or not saved.NAME.fullmatch(chosen)):
        return "", saved.Target(chosen)
    targets = saved.load()
    if chosen and chosen not in targets.targets and not targets.targets:
        return "", saved.Target(chosen)  # which the client refuses, and says why
    name = chosen or targets.current
    return (name, saved.find(targets, name)) if name else ("", saved.Target(DEFAULT_TARGET))


def _credentials(name: str, target: saved.Target) -> tuple[str, dict[str, str]]:
    """Return the name of the credential's source, empty if there is none, and the client's arguments.

    A variable comes before what the target has.
    """
    from agenta_ai.errors import InvalidInput

    given = [variable for variable in CREDENTIALS if os.environ.get(variable)]
    if len(given) > 1:
        raise InvalidInput(f"{' and '.join(given)} are set. Keep one of them.")
    for variable in given:
        value = os.environ[variable]
        if variable.endswith("_FILE"):
            # Files end in a newline.
            value = streams.read_text(value)[0].strip()
        return variable, {CREDENTIALS[variable]: value}
    own = {"api_key": target.api_key, "token": target.token}
    credentials = {argument: value for argument, value in own.items() if value}
    return (f"the {target.credential} of target {name}" if credentials else ""), credentials


def _tls(args: argparse.Namespace, target: saved.Target) -> bool | grpc.ChannelCredentials | None:
    from agenta_ai.errors import InvalidInput

    wanted: bool | None = target.tls if args.tls is None else args.tls
    ca = args.ca or ("" if args.tls is False else target.ca)
    if not (ca or args.cert or args.key):
        return wanted
    if wanted is False:
        raise InvalidInput("--plaintext can't be combined with --ca, --cert or --key. Leave out one or the other.")
    if bool(args.cert) != bool(args.key):
        raise InvalidInput("--cert and --key belong together. Give both.")
    import grpc

    contents = [streams.read_bytes(name) if name else None for name in (ca, args.cert, args.key)]
    _check_certificates(ca, args.cert, args.key)
    return grpc.ssl_channel_credentials(contents[0], contents[2], contents[1])


def _check_certificates(ca: str | None, cert: str | None, key: str | None) -> None:
    """Check the files. For faults in them, gRPC would only report that it cannot connect."""
    import ssl

    from agenta_ai.errors import InvalidInput

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca:
            context.load_verify_locations(ca)
    except OSError:  # ssl has its errors among them
        raise InvalidInput(f"--ca {ca}: must contain certificates in PEM format.") from None
    try:
        if cert:
            # An empty password keeps ssl from asking for one on the terminal.
            context.load_cert_chain(cert, key, password="")
    except OSError:  # ssl has its errors among them
        raise InvalidInput(
            "--cert and --key: must be a certificate and its private key, in PEM format and unencrypted."
        ) from None
