"""Generated Python code is kept clear of the package ``agenta``."""

from agenta_ai_server.typed.python_code import rewritten

PATH = "agenta.ai.tools.acme.support.v1"
MODULE = "support_tools_service_pb2"


def test_modules_of_tools_move_to_another_root() -> None:
    code = f"""
from agenta.ai.v1 import tool_service_pb2 as agenta_dot_ai_dot_v1_dot_tool__service__pb2
from {PATH} import {MODULE} as x
import {PATH}.{MODULE}
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, '{PATH}.{MODULE}', _globals)
'/{PATH}.SupportToolsService/ClassifyTicket'
"""
    assert (
        rewritten(code, "my_tools")
        == f"""
from agenta_ai.v1 import tool_service_pb2 as tool__service__pb2
from my_tools.acme.support.v1 import {MODULE} as x
import my_tools.acme.support.v1.{MODULE}
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, 'my_tools.acme.support.v1.{MODULE}', _globals)
'/{PATH}.SupportToolsService/ClassifyTicket'
"""
    )
