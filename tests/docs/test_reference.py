"""docs/reference.md: it has all of the contract, and is as it would be made now."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.text_format import Parse

from agenta_ai.v1 import content_pb2, error_pb2, tool_pb2, tool_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference.md").read_text()


def test_it_is_as_it_would_be_made_now() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs/reference.py"], capture_output=True, text=True, check=True)
    assert made.stdout == REFERENCE, "run 'make docs'"


def rows() -> Iterator[tuple[str, str]]:
    """Each thing of the contract: the section that it belongs to, and how its row begins."""
    for module in (tool_service_pb2, tool_pb2, content_pb2, error_pb2):
        file = module.DESCRIPTOR
        for service in file.services_by_name.values():
            yield from ((service.name, f"| `{method.name}` | [{method.input_type.name}]") for method in service.methods)
        for message in file.message_types_by_name.values():
            assert not message.nested_types, "the reference has no place for these yet"
            assert not message.enum_types
            yield from ((message.name, f"| {field.number} | `{field.name}` | ") for field in message.fields)
        for enum in file.enum_types_by_name.values():
            yield from ((enum.name, f"| {value.number} | `{value.name}` | ") for value in enum.values)


@pytest.mark.parametrize(("section", "row"), list(rows()))
def test_it_has_all_of_the_contract(section: str, row: str) -> None:
    _, _, after = REFERENCE.partition(f"\n## {section}\n")
    (line,) = [line for line in after.partition("\n## ")[0].splitlines() if line.startswith(row)]
    assert len(line.removeprefix(row)) > len("Not set."), "without its comment"


FILE = """
message_type {
  name: "M"
  field { name: "old" number: 7 type: TYPE_STRING label: LABEL_REPEATED options { deprecated: true } }
}
source_code_info {
  location { path: [4, 0] leading_comments: " M has a <b>.\\n" }
  location { path: [4, 0, 2, 0] leading_comments: " A | b.\\n\\n     x < 1\\n" }
}
"""


def test_what_the_contract_does_not_have_yet() -> None:
    reference = runpy.run_path(str(ROOT / "docs/reference.py"))["reference"]
    *_, heading, _, row = reference(Parse(FILE, FileDescriptorProto()))
    assert heading == "\n## M\n\nM has a &lt;b&gt;."
    assert row == "| 7 | `old` | repeated string | **Deprecated.** A \\| b. `x < 1` |"
