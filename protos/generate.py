"""Generates the Python code of the contract and of our own tools, under an import root of our own.

``agenta_ai_server/typed/python_code.py`` says why and how. The names in the contract itself
(``agenta.ai.v1.ToolService``, ``agenta/ai/v1/tool.proto``) stay as they are: they are what travels.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

PROTOS = Path(__file__).parent
CLIENT = PROTOS.parent / "client" / "agenta_ai"
CONTRACT = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("agenta/ai/v1/*.proto"))
TOOLS = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("agenta/ai/tools/**/*.proto"))
COMPILER = "1.76.0"

INIT = '''"""Generated from ``protos/agenta/ai/{}``: messages and stubs. Never edited by hand."""
'''

# This environment has what makes the code, and not what the server needs.
sys.path.insert(0, str(PROTOS.parent / "server"))
from agenta_ai_server.typed.python_code import rewritten  # noqa: E402  # after the path is known


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
    if protoc.main([*protoc_with_paths, *code, *CONTRACT, *TOOLS]) or protoc.main(
        [*protoc_with_paths, *description, *CONTRACT]
    ):
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
        replace_package(out / "agenta/ai/v1", CLIENT / "v1")
        replace_package(out / "agenta/ai/tools", CLIENT / "tools")
        # For callers of a server whose reflection is off: grpcurl -protoset.
        shutil.copy(out / "descriptor_set.binpb", CLIENT / "v1")


def replace_package(generated: Path, package: Path) -> None:
    """Replace a package by what was generated for it."""
    shutil.rmtree(package, ignore_errors=True)
    for path in sorted(generated.rglob("*.py*")):
        if path.stem.endswith("_pb2_grpc") and "_service" not in path.stem:
            continue  # empty: the plugins write one for each file, with a service in it or not
        target = package / path.relative_to(generated)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(rewritten(path.read_text()))
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__init__.py").write_text(INIT.format(folder.relative_to(CLIENT).as_posix()))


if __name__ == "__main__":
    main()
