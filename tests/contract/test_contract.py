"""The contract: it keeps the rules of its field, and what is made from it is what callers import."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from agenta_ai.tools.agenta.api.v1 import api_tools_service_pb2
from agenta_ai.v1 import tool_service_pb2, tool_service_pb2_grpc
from agenta_ai_server.typed.python_code import rewritten

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "tests/contract/baseline.binpb"


# The exit code of buf if it ran and found something.
BREAKING = 100


def buf(*arguments: str, protos: Path = ROOT / "protos") -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("buf")
    return subprocess.run([program, *arguments], cwd=protos, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [("lint",), ("format", "--diff", "--exit-code"), ("breaking", "--against", str(BASELINE))]
)
def test_nothing_is_to_be_complained_of(arguments: tuple[str, ...]) -> None:
    done = buf(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("no such text", "", ""),
        ("bool replayed = 4;", "bool replayed = 4; bool stored = 6;", ""),
        ("bool replayed = 4;", "", '"replayed" on message "CallMeta" was deleted'),
        ("bool replayed = 4;", 'reserved 4; reserved "replayed";', '"replayed" on message "CallMeta" was deleted'),
        ("bool is_error = 3;", "bool failed = 3;", 'changed name from "is_error" to "failed"'),
        ("bool is_error = 3;", "bool is_error = 6;", '"is_error" on message "CallToolResponse" was deleted'),
        ("string request_id = 3;", "bytes request_id = 3;", 'changed type from "string" to "bytes"'),
        ("string request_id = 3;", 'string request_id = 3 [json_name = "id"];', 'from "requestId" to "id"'),
        ("uint32 burst = 1;", "uint64 burst = 1;", 'changed type from "uint32" to "uint64"'),
        ("int32 page_size = 1;", "optional int32 page_size = 1;", "changed cardinality"),
        ("repeated string warnings = 5;", "string warnings = 5;", "changed cardinality"),
        ("ERROR_REASON_RATE_LIMITED = 11;", "ERROR_REASON_SLOW_DOWN = 11;", "ERROR_REASON_RATE_LIMITED"),
        (
            "ERROR_REASON_OVERLOADED = 13;",
            "ERROR_REASON_OVERLOADED = 19;",
            'value "13" on enum "ErrorReason"',
        ),
        ("rpc ListTools(", "rpc ListAllTools(", 'RPC "ListTools" on service "ToolService" was deleted'),
        ("returns (CallToolResponse)", "returns (stream CallToolResponse)", "from server unary to server streaming"),
        ("option idempotency_level = NO_SIDE_EFFECTS;", "", "idempotency_level"),
    ],
)
def test_what_breaks_callers_is_found(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "protos", tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("agenta/**/*.proto"):
        path.write_text(path.read_text().replace(old, new))
    done = buf("breaking", "--against", str(BASELINE), protos=tmp_path)
    assert complaint in done.stdout
    assert done.returncode == (BREAKING if complaint else 0)


def test_the_contract_imports_nothing_but_protobuf() -> None:
    shipped = FileDescriptorSet.FromString((files("agenta_ai.v1") / "descriptor_set.binpb").read_bytes())
    ours = [file for file in shipped.file if file.name.startswith("agenta/")]
    assert len(ours) == 4
    for file in ours:
        assert all(name.startswith(("agenta/ai/v1/", "google/protobuf/")) for name in file.dependency)
        assert len(file.source_code_info.location) > 10, "comments are shipped"


def test_names_of_modules_change_and_names_of_the_contract_do_not() -> None:
    code = """
from agenta.ai.v1 import tool_pb2 as agenta_dot_ai_dot_v1_dot_tool__pb2
import agenta.ai.v1.tool_pb2
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, 'agenta.ai.v1.tool_pb2', _globals)
DESCRIPTOR = add(b'\\n\\x17agenta/ai/v1/tool.proto\\x12\\x0cagenta.ai.v1')
'/agenta.ai.v1.ToolService/CallTool'
"""
    assert (
        rewritten(code)
        == """
from agenta_ai.v1 import tool_pb2 as tool__pb2
import agenta_ai.v1.tool_pb2
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, 'agenta_ai.v1.tool_pb2', _globals)
DESCRIPTOR = add(b'\\n\\x17agenta/ai/v1/tool.proto\\x12\\x0cagenta.ai.v1')
'/agenta.ai.v1.ToolService/CallTool'
"""
    )


def test_the_import_root_leaves_the_name_of_the_sdk_alone() -> None:
    assert tool_service_pb2.CallToolRequest.__module__ == "agenta_ai.v1.tool_service_pb2"
    assert tool_service_pb2.CallToolRequest.DESCRIPTOR.full_name == "agenta.ai.v1.CallToolRequest"
    assert tool_service_pb2_grpc.ToolServiceServicer.__module__ == "agenta_ai.v1.tool_service_pb2_grpc"
    assert api_tools_service_pb2.RefinePromptRequest.__module__ == "agenta_ai.tools.agenta.api.v1.api_tools_service_pb2"
    folders = [ROOT / "client/agenta_ai" / name for name in ("v1", "tools")]
    generated = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    assert "import agenta." not in generated
    assert "from agenta." not in generated


def test_only_the_command_reads_the_environment() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for source in ("client", "server")
        for path in (ROOT / source).rglob("*.py")
        if any(
            isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
            for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    of_server = [reader for reader in readers if not reader.startswith("client/agenta_ai/cli/")]
    assert of_server == ["server/agenta_ai_server/cli.py"]


def test_the_floors_are_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"{len(written)} kept, 0 broken" in done.stdout
