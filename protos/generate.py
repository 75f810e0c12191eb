"""Generates the Python code of the contract, under an import root of our own.

protoc names Python modules after the proto packages, so ``agenta/ai/v1`` would become the Python package ``agenta``,
which belongs to the published Agenta SDK. The import root is therefore rewritten to ``agenta_ai.v1``. The names in the
contract itself (``agenta.ai.v1.ToolService``, ``agenta/ai/v1/tool.proto``) stay as they are: they are what travels.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

PROTOS = Path(__file__).parent
PACKAGE = PROTOS.parent / "client" / "agenta_ai" / "v1"
SOURCES = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("agenta/**/*.proto"))
COMPILER = "1.76.0"

INIT = '''"""Generated from ``protos/agenta/ai/v1``: the messages and stubs of the contract. Never edited by hand."""
'''


def rewrite_import_root(code: str) -> str:
    """Return the generated ``code`` (Python or stub) with the module ``agenta.ai.v1`` renamed to ``agenta_ai.v1``.

    Only module names are touched: imports, uses of fully qualified modules in stubs, and the module name that the
    messages are given. Names of the contract never end in ``_pb2``, so they can't match.
    """
    code = re.sub(r"\bagenta\.ai\.v1\.(\w+_pb2)\b", r"agenta_ai.v1.\1", code)
    code = re.sub(r"^from agenta\.ai\.v1 import ", "from agenta_ai.v1 import ", code, flags=re.MULTILINE)
    # The stubs import their siblings for the side effect of naming the package: "import agenta.ai.v1.tool_pb2".
    return code.replace("agenta_dot_ai_dot_v1_dot_", "")


def compile_protos(out: Path) -> None:
    """Run protoc with the Python plugins into ``out``. Raises SystemExit when it fails."""
    from grpc_tools import protoc

    protoc_with_paths = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={files('grpc_tools') / '_proto'}:{files('google.rpc') / '../..'}",
    ]
    code = [
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
    ]
    description = [
        f"--descriptor_set_out={out / 'descriptor_set.binpb'}",
        "--include_imports",
        "--include_source_info",
        # Not imported by the contract, but needed to read the details of an error.
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
    ]
    if any(protoc.main([*protoc_with_paths, *options, *SOURCES]) for options in (code, description)):
        sys.exit("protoc failed: see above.")


def main() -> None:
    """Replace the generated package."""
    if version("grpcio-tools") != COMPILER:
        sys.exit(
            f"grpcio-tools is {version('grpcio-tools')}, not {COMPILER}: run 'make proto', which has the right one."
        )
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        compile_protos(out)
        shutil.rmtree(PACKAGE, ignore_errors=True)
        PACKAGE.mkdir(parents=True)
        (PACKAGE / "__init__.py").write_text(INIT)
        for path in sorted((out / "agenta/ai/v1").iterdir()):
            if path.stem.endswith("_pb2_grpc") and not path.name.startswith("tool_service"):
                continue  # empty: the plugins write one for each file, with a service in it or not
            (PACKAGE / path.name).write_text(rewrite_import_root(path.read_text()))
        # For callers of a server whose reflection is off: grpcurl -protoset.
        shutil.copy(out / "descriptor_set.binpb", PACKAGE)


if __name__ == "__main__":
    main()
