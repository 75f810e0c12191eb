"""Load from programs that are made for it: ghz for gRPC, vegeta for HTTP.

Both either keep so many calls in flight, each followed by the next as soon as it is answered (a closed loop), or send
so many a second, whether or not those before have been answered (an open loop: a server that stands still isn't spared
the calls that come meanwhile). Vegeta was taken for HTTP because it does both, and Go alone builds it: in hey and
h2load a rate is that of each connection, which waits for its answers, and oha needs Rust.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.rig import ROOT, request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TOOLS = ROOT / ".tools" / "bin"
# A call that takes longer has failed.
TIMEOUT = 120
CALL = "agenta.ai.v1.ToolService.CallTool"


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        seconds: For how long; calls that are then in flight are waited for.
        in_flight: So many all the time, or
        rate: so many a second.
        connections: Over so many, by gRPC; 0 for as many as calls in flight, up to sixteen.
    """

    seconds: float
    in_flight: int = 0
    rate: int = 0
    connections: int = 0


@dataclass(frozen=True)
class Answers:
    """What came back.

    Attributes:
        latencies: Seconds of each call that succeeded.
        failures: How the others failed.
    """

    latencies: list[float]
    failures: list[str]


class Ghz:
    """Calls of a gRPC server.

    Args:
        address: Of the server.
        key: The callers' API key.
        folder: For its files.
        with_ids: Each call has a ``request_id`` of its own.
    """

    def __init__(self, address: str, key: str, folder: Path, *, with_ids: bool = False) -> None:
        self._command = [
            str(TOOLS / "ghz"), "--insecure", "--proto", "protos/agenta/ai/v1/tool_service.proto", "-i", "protos",
            "--call", CALL, "-t", f"{TIMEOUT}s", "--duration-stop", "wait", "-O", "json",
            "-m", json.dumps({"authorization": f"ApiKey {key}"}), *_message(folder, with_ids=with_ids), address,
        ]  # fmt: skip

    async def send(self, load: Load) -> Answers:
        if load.rate:
            how = ["--async", "--rps", str(load.rate), "-c", "4", "--connections", "4"]
        else:
            connections = load.connections or min(load.in_flight, 16)
            how = ["-c", str(load.in_flight), "--connections", str(connections)]
        report = json.loads(await _output(*self._command, *how, "-z", f"{load.seconds}s"))
        details = report["details"] or []
        return Answers(
            [each["latency"] / 1e9 for each in details if each["status"] == "OK"],
            [each["error"] or each["status"] for each in details if each["status"] != "OK"],
        )


class Vegeta:
    """Calls of an HTTP server.

    Args:
        url: What is posted to.
        headers: Of each request.
        body: Of each request.
        folder: For its files.
    """

    def __init__(self, url: str, headers: Mapping[str, str], body: bytes, folder: Path) -> None:
        target = {
            "method": "POST",
            "url": url,
            "header": {name: [value] for name, value in headers.items()},
            "body": base64.b64encode(body).decode(),
        }
        self._targets = folder / "targets.json"
        self._targets.write_text(f"{json.dumps(target)}\n")
        self._results = folder / "results"

    async def send(self, load: Load) -> Answers:
        if load.rate:
            how = ["-rate", str(load.rate)]
        else:
            how = ["-rate", "0", "-workers", str(load.in_flight), "-max-workers", str(load.in_flight)]
        vegeta = str(TOOLS / "vegeta")
        await _output(
            vegeta, "attack", "-format", "json", "-targets", str(self._targets), "-output", str(self._results),
            "-timeout", f"{TIMEOUT}s", "-max-body", "0", "-duration", f"{load.seconds}s", *how,
        )  # fmt: skip
        rows = list(csv.reader((await _output(vegeta, "encode", "--to", "csv", str(self._results))).splitlines()))
        return Answers(
            [int(row[2]) / 1e9 for row in rows if row[1] == "200"],
            [row[5] or row[1] for row in rows if row[1] != "200"],
        )


def _message(folder: Path, *, with_ids: bool) -> list[str]:
    if not with_ids:
        file = folder / "message.binpb"
        file.write_bytes(request().SerializeToString())
        return ["--disable-template-functions", "--disable-template-data", "-B", str(file)]
    sent = request()
    # The braces of the prompt are none of ghz's own.
    arguments = json.dumps(dict(sent.arguments)).replace("{{", r"\u007b\u007b")
    file = folder / "message.json"
    file.write_text(f'{{"name": "{sent.name}", "request_id": "{{{{newUUID}}}}", "arguments": {arguments}}}')
    return ["-D", str(file)]


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, wrong = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{wrong.decode()}")
    return out.decode()
