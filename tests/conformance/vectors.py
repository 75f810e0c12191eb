"""The vectors: read from the files of this folder, with every fault named by its place. README.md has their form."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from conformance.matching import fault_of
from google.protobuf import json_format
from google.rpc import code_pb2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from agenta_ai.tools.agenta.api.v1 import api_tools_service_pb2
from agenta_ai.v1 import error_pb2, tool_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent
SERVERS_FILE = "servers.json"
# Which targets are local: a table for the tests of each client, not vectors.
TARGETS_FILE = "targets.json"
PLACEHOLDER = re.compile(r"\$\{([a-z0-9_]+)\}")

Method = Literal["Status", "ListTools", "CallTool", "CallToolStream", "RefinePrompt"]
REQUESTS: dict[str, type[Any]] = {
    "Status": tool_service_pb2.StatusRequest,
    "ListTools": tool_service_pb2.ListToolsRequest,
    "CallTool": tool_service_pb2.CallToolRequest,
    "CallToolStream": tool_service_pb2.CallToolStreamRequest,
    "RefinePrompt": api_tools_service_pb2.RefinePromptRequest,
}
STREAM = "CallToolStream"
# The method that a tool has of its own, of another service than the others.
TYPED = "RefinePrompt"
# What every vector may say besides the names of its server's callers: new ids, and an address where nobody listens.
UUIDS = ("uuid", "uuid2")
NOBODY = "nobody"
# What the settings of a server may say besides that: where its files are.
FOLDER = "folder"


class VectorError(ValueError):
    """Files have faults. The message lists them all."""


def _code(name: str) -> str:
    if name not in code_pb2.Code.keys():  # noqa: SIM118  # it is no dictionary
        raise ValueError(f"{name} is no code of gRPC")
    return name


def _reason(name: str) -> str:
    if f"ERROR_REASON_{name}" not in error_pb2.ErrorReason.keys():  # noqa: SIM118
        raise ValueError(f"{name} is no ErrorReason of the contract")
    return name


def _expected(value: JsonValue) -> JsonValue:
    if fault := fault_of(value):
        raise ValueError(fault)
    return value


Code = Annotated[str, AfterValidator(_code)]
Reason = Annotated[str, AfterValidator(_reason)]
Expected = Annotated[JsonValue, AfterValidator(_expected)]
Seconds = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of a file. An unknown field is a fault: a misspelt expectation would expect nothing."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


class Expect(Part):
    """What a client must report. What isn't given may be anything, but the details of an error are all given."""

    code: Code
    message: Expected = None
    reason: Reason | None = None
    details: dict[str, Expected] = {}
    progress: Expected = None
    response: Expected = None
    native: Expected = None
    metadata: dict[str, Expected] = {}
    seconds: Expected = None
    outcome: Expected = None

    def says(self, field: str) -> bool:
        """Whether the field is given, be it as null."""
        return field in self.model_fields_set


class Call(Part):
    """One call, and what must come of it."""

    method: Method = "CallTool"
    request: dict[str, JsonValue] = {}
    request_base64: str | None = None
    metadata: dict[str, str] = {}
    timeout: Seconds | None = None
    cancel_after: Seconds | None = None
    client: Literal["bare", "shipped"] = "bare"
    wait_for_limit: bool = False
    retries: bool = True
    close_after: Seconds | None = None
    read_after: Seconds | None = None
    target: Literal["server", "nobody"] = "server"
    times: Annotated[int, Field(ge=1)] = 1
    during: bool = False
    expect: Expect

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if self.request and self.request_base64 is not None:
            raise ValueError("request and request_base64 exclude each other")
        if self.method != STREAM and (self.expect.says("progress") or self.read_after is not None):
            raise ValueError(f"only {STREAM} has progress and read_after")
        try:
            json_format.ParseDict(expanded(self.request), REQUESTS[self.method]())
        except json_format.ParseError as error:
            raise ValueError(f"request: {error}") from None
        return self


class Reply(Part):
    """What the scripted server answers to one attempt, after a while: a response, bytes, a status; or it is cut off.

    On a stream come the events first, each a ``CallToolStreamResponse``, and then the response as its result.
    """

    events: tuple[dict[str, JsonValue], ...] = ()
    response: dict[str, JsonValue] | None = None
    response_base64: str | None = None
    status: Code | None = None
    cut: Literal[True] | None = None
    message: str = ""
    details: tuple[dict[str, JsonValue], ...] = ()
    metadata: dict[str, str] = {}
    wait: Seconds = 0

    @model_validator(mode="after")
    def _is_one_answer(self) -> Self:
        if sum(given is not None for given in (self.response, self.response_base64, self.status, self.cut)) != 1:
            raise ValueError("must have one of response, response_base64, status and cut")
        return self


class Vector(Part):
    """One case: calls to a server of its own kind, what must come of each, and what must have arrived there."""

    name: Annotated[str, Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
    why: Annotated[str, Field(pattern=r"^[A-Z0-9].*\.$")]
    server: str = "plain"
    script: Annotated[tuple[Reply, ...], Field(min_length=1)] | None = None
    calls: Annotated[tuple[Call, ...], Field(min_length=1)]
    arrivals: int | tuple[Expected, ...] | None = None
    theme: str = Field(default="", exclude=True)

    @model_validator(mode="after")
    def _begins_alone(self) -> Self:
        if self.calls[0].during:
            raise ValueError("calls[0].during: no call runs yet")
        if self.script and "server" in self.model_fields_set:
            raise ValueError("script and server exclude each other")
        return self

    @property
    def steps(self) -> list[list[Call]]:
        """The calls in their order; those of one step run at the same time."""
        steps: list[list[Call]] = []
        for call in self.calls:
            if call.during:
                steps[-1].append(call)
            else:
                steps += [[call] for _ in range(call.times)]
        return steps

    @property
    def needs_outcomes(self) -> bool:
        """Whether only programs can play it that report outcomes, switch retries off and close their client."""
        return any(
            call.expect.says("outcome") or not call.retries or call.close_after is not None for call in self.calls
        )

    @property
    def needs_streams(self) -> bool:
        """Whether only programs can play it that know the method with progress."""
        return any(call.method == STREAM for call in self.calls)

    @property
    def needs_typed(self) -> bool:
        """Whether only programs can play it that know a tool's own method."""
        return any(call.method == TYPED for call in self.calls)

    def filled(self, values: Mapping[str, str]) -> Self:
        """The vector with these values in place of ``${name}``."""
        raw = self.model_dump(mode="json", exclude_unset=True)
        return type(self).model_validate_json(json.dumps(filled(raw, values) | {"theme": self.theme}))


class Caller(Part):
    """Somebody who has a credential for a server, and is another one for each vector."""

    kind: Literal["api_key", "token"] = "api_key"
    permissions: tuple[str, ...] = ("edit_workflows",)
    revoked: bool = False
    expired: bool = False


class Server(Part):
    """A service: its settings beside those of the tests, files that these name, and who may call.

    One that is ``alone`` has a single vector, whose calls would disturb others.
    """

    why: str
    alone: bool = False
    settings: dict[str, str] = {}
    files: dict[str, str] = {}
    callers: dict[str, Caller] = {}


NO_SERVICE = Server(why="The scripted server has no callers of its own.")


class _Theme(Part):
    vectors: tuple[Vector, ...]


class _Servers(Part):
    servers: dict[str, Server]


def load(folder: Path = HERE) -> tuple[list[Vector], dict[str, Server]]:
    """All vectors, and the servers that they name.

    Raises:
        VectorError: A file has a fault.
    """
    faults: list[str] = []
    servers = _read(folder / SERVERS_FILE, _Servers, faults)
    vectors: list[Vector] = []
    for path in sorted(folder.glob("*.json")):
        if path.name not in (SERVERS_FILE, TARGETS_FILE) and (theme := _read(path, _Theme, faults)):
            vectors += [vector.model_copy(update={"theme": path.stem}) for vector in theme.vectors]
    if servers:
        faults += _misfits(vectors, servers.servers)
    if faults or not servers:
        raise VectorError("\n".join(faults))
    return vectors, servers.servers


def _read(path: Path, form: type[Any], faults: list[str]) -> Any:
    try:
        return form.model_validate_json(path.read_bytes())
    except OSError as error:
        faults.append(f"{path.name}: {error.strerror}")
    except ValidationError as error:
        faults += [f"{path.name}: {_fault(dict(details))}" for details in error.errors(include_url=False)]
    return None


def _fault(details: dict[str, Any]) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"]).lstrip(".")
    what = "is unknown" if details["type"] == "extra_forbidden" else details["msg"].removeprefix("Value error, ")
    return f"{place}: {what}" if place else what


def _misfits(vectors: list[Vector], servers: Mapping[str, Server]) -> Iterator[str]:
    seen: set[str] = set()
    for vector in vectors:
        place = f"{vector.theme}.json: {vector.name}"
        if vector.name in seen:
            yield f"{place}: the name is taken"
        seen.add(vector.name)
        server = NO_SERVICE if vector.script else servers.get(vector.server)
        if not server:
            yield f"{place}: there is no server {vector.server}"
            continue
        used = set(PLACEHOLDER.findall(vector.model_dump_json(exclude_unset=True)))
        unknown = sorted(used - {*UUIDS, NOBODY, *server.callers})
        yield from (f"{place}: there is no value for ${{{name}}}" for name in unknown)
    played = Counter(vector.server for vector in vectors if not vector.script)
    for name, server in servers.items():
        if not played[name]:
            yield f"{SERVERS_FILE}: {name}: no vector is played there"
        if server.alone and played[name] > 1:
            yield f"{SERVERS_FILE}: {name}: more than one vector is played there"


def filled(value: Any, values: Mapping[str, str]) -> Any:
    """The value with these in place of ``${name}``, in all of its texts."""
    match value:
        case str():
            return PLACEHOLDER.sub(lambda found: values[found[1]], value)
        case dict():
            return {key: filled(item, values) for key, item in value.items()}
        case list():
            return [filled(item, values) for item in value]
    return value


def expanded(value: Any) -> Any:
    """The value with ``$repeat`` and ``$json`` replaced by the texts that they stand for."""
    match value:
        case {"$repeat": [str(text), int(times)], **rest} if not rest:
            return text * times
        case {"$json": content, **rest} if not rest:
            return json.dumps(expanded(content), ensure_ascii=False)
        case dict():
            return {key: expanded(item) for key, item in value.items()}
        case list() | tuple():
            return [expanded(item) for item in value]
    return value
