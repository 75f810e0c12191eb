"""Keeps generated Python code clear of the package ``agenta``, which belongs to Agenta's published SDK.

protoc names Python modules after the packages of the contract, so that ``agenta/ai/v1`` would become a part of
``agenta``. Only the names of modules are changed: those of the contract are what travels.
"""

from __future__ import annotations

import re

OWN_TOOLS_ROOT = "agenta_ai.tools"


def rewritten(code: str, tools_root: str = OWN_TOOLS_ROOT) -> str:
    """Return the generated ``code``, Python or stub, with its modules renamed.

    ``agenta.ai.v1`` becomes ``agenta_ai.v1``, and ``agenta.ai.tools`` becomes ``tools_root``. Names of the contract
    never end in ``_pb2``, so that they can't be meant.

    Args:
        code: What protoc's plugins for Python have written.
        tools_root: The package that holds the modules of tools.
    """
    for package, root in (
        (r"agenta\.ai()\.v1", "agenta_ai.v1"),
        (r"agenta\.ai\.tools((?:\.\w+)+)", tools_root),
    ):
        code = re.sub(rf"\b{package}\.(\w+_pb2)\b", rf"{root}\1.\2", code)
        code = re.sub(rf"^from {package} import ", rf"from {root}\1 import ", code, flags=re.MULTILINE)
    # The stubs import their siblings for the side effect of naming the package: "import agenta.ai.v1.tool_pb2".
    return code.replace("agenta_dot_ai_dot_v1_dot_", "")
