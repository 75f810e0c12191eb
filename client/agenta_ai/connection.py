"""The target of calls and what is sent with each, checked once when a client is created."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.experimental

from agenta_ai.attempts import Attempts, check_retries
from agenta_ai.credentials import AUTHORIZATION, Credentials, TokenProvider, credentials
from agenta_ai.errors import CallFailed, InvalidInput
from agenta_ai.failures import call_failed
from agenta_ai.service_config import CALL_TIMEOUT, CASES_TIMEOUT, CHANNEL_OPTIONS, MAX_TIMEOUT, READ_TIMEOUT
from agenta_ai.targets import is_local, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agenta_ai.meta import Metadata

MAX_CONNECTIONS = 100

_METADATA_KEY = re.compile(r"[0-9A-Za-z_.-]+")
_METADATA_TEXT = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Connection:
    """The configuration of a client.

    Attributes:
        target: The server, as the user wrote it.
        address: The same as gRPC wants it.
        is_local: Whether the server is on this machine.
        channel_credentials: Those of the channel; ``None`` means plaintext.
        options: Those of the channel.
        timeout: Seconds that a tool may take by default.
        caller: Who calls, and what else is sent with every call.
        wait_for_limit: Whether calls wait for a rate limit.
        retries: How often a call is sent again; ``None`` as the service config has it.
        connections: How many connections calls go over.
    """

    target: str
    address: str
    is_local: bool
    channel_credentials: grpc.ChannelCredentials | None
    options: Sequence[tuple[str, str | int]]
    timeout: float
    caller: Credentials
    wait_for_limit: bool
    retries: int | None
    connections: int

    def timeout_of(self, timeout: float | None) -> float:
        """Return the seconds that a tool may take: the call's own if given."""
        return self.timeout if timeout is None else check_timeout(timeout)

    def cases_timeout_of(self, timeout: float | None) -> float:
        """Return the seconds that a refinement against test cases may take: the call's own if given."""
        return max(self.timeout, CASES_TIMEOUT) if timeout is None else check_timeout(timeout)

    def attempts(self, method: str, timeout: float, retries: int | None) -> Attempts:
        """Return the attempts of one call, whose time begins now; its own ``retries`` count if given."""
        retries = self.retries if retries is None else retries
        return Attempts(method, timeout, retries=retries, wait_for_limit=self.wait_for_limit)

    def failed(self, error: grpc.RpcError, request_id: str, timeout: float, *, open_before: bool) -> CallFailed:
        """Return what to raise for an error of gRPC: see :func:`agenta_ai.failures.call_failed`."""
        return call_failed(
            error,
            target=self.target,
            tls=self.channel_credentials is not None,
            request_id=request_id,
            timeout=timeout,
            credentials=self.caller.given,
            open_before=open_before,
        )

    def extra_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
        """Check the metadata of one call.

        Raises:
            InvalidInput: A pair can't be sent, or would send a credential in plaintext to another machine.
        """
        pairs = call_metadata(metadata)
        if any(key == AUTHORIZATION for key, _ in pairs):
            self.check_credentials(f"{AUTHORIZATION} in metadata")
        return pairs

    def check_credentials(self, given: str) -> None:
        """Refuse to send credentials to another machine in plaintext."""
        if self.channel_credentials is None and not self.is_local:
            raise InvalidInput(
                f"{given}: credentials are not sent to another machine in plaintext. Nothing was sent. "
                "Use TLS, or reach the server through a loopback address or a Unix socket."
            )


def connection(
    target: str,
    *,
    tls: bool | grpc.ChannelCredentials | None = None,
    timeout: float = CALL_TIMEOUT,
    metadata: Iterable[tuple[str, str | bytes]] = (),
    api_key: str | None = None,
    token: str | None = None,
    token_provider: TokenProvider | None = None,
    project: str | None = None,
    wait_for_limit: bool = False,
    retries: int | None = None,
    connections: int = 1,
) -> Connection:
    """Check and complete the arguments of a client: see :class:`agenta_ai.Client`.

    Raises:
        InvalidInput: One of them can't be used.
    """
    address = resolve(target)
    local = is_local(address)
    options = list(CHANNEL_OPTIONS)
    if local:
        # gRPC would send plaintext calls to this machine through the proxy that http_proxy names.
        options.append(("grpc.enable_http_proxy", 0))
    if _check_connections(connections) > 1:
        # gRPC would let the channels of a process share one.
        options.append(("grpc.use_local_subchannel_pool", 1))
    made = Connection(
        target=target,
        address=address,
        is_local=local,
        channel_credentials=_channel_credentials(not local if tls is None else tls),
        options=options,
        timeout=check_timeout(timeout),
        caller=credentials(
            api_key=api_key,
            token=token,
            token_provider=token_provider,
            project=project,
            metadata=call_metadata(metadata),
        ),
        wait_for_limit=wait_for_limit,
        retries=check_retries(retries),
        connections=connections,
    )
    if made.caller.given:
        made.check_credentials(made.caller.given)
    return made


def _check_connections(connections: int) -> int:
    if not isinstance(connections, int) or isinstance(connections, bool) or not 1 <= connections <= MAX_CONNECTIONS:
        raise InvalidInput(f"connections: must be an integer from 1 to {MAX_CONNECTIONS}.")
    return connections


def _channel_credentials(tls: object) -> grpc.ChannelCredentials | None:
    # gRPC has credentials that mean plaintext, which must not count as TLS.
    if tls is False or tls is grpc.experimental.insecure_channel_credentials():  # type: ignore[no-untyped-call]
        return None
    if tls is True:
        return grpc.ssl_channel_credentials()
    if isinstance(tls, grpc.ChannelCredentials):
        return tls
    raise InvalidInput("tls: must be True, False or what grpc.ssl_channel_credentials(ca, key, certificate) returns.")


def call_metadata(extra: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Return the user's own pairs, their keys in lower case.

    Raises:
        InvalidInput: A pair can't be sent. Its value isn't shown: it may be a secret.
    """
    return tuple(_metadata_pair(pair) for pair in extra)


def _metadata_pair(pair: object) -> tuple[str, str | bytes]:
    match pair:
        case [str(key), value] if _METADATA_KEY.fullmatch(key):
            key = key.lower()
            if key.endswith("-bin"):
                if isinstance(value, bytes):
                    return key, value
                raise InvalidInput(f"metadata: the value of {key!r} must be bytes.")
            if isinstance(value, str) and _METADATA_TEXT.fullmatch(value):
                return key, value
            raise InvalidInput(f"metadata: the value of {key!r} must be a line of printable ASCII.")
    raise InvalidInput(
        "metadata: must be pairs of a key and a value. Keys have letters, digits, '-', '_' and '.' only."
    )


def check_timeout(timeout: float) -> float:
    """Return the time-out in seconds.

    Raises:
        InvalidInput: It isn't greater than 0 and at most a year.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidInput(f"timeout: must be a number of seconds, greater than 0 and at most {MAX_TIMEOUT}.")
    return timeout


def read_timeout(timeout: float | None) -> float:
    """Return the seconds that a status or a page of tools may take."""
    return READ_TIMEOUT if timeout is None else check_timeout(timeout)
