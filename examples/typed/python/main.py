"""Call the three tools of examples/tools.toml by stubs that were generated from their .proto files.

::

    agenta-ai-server tools proto --file examples/tools.toml --out build/python --python
    PYTHONPATH=build/python agenta-ai-server dev --tools examples/tools.toml -- python examples/typed/python/main.py
"""

from __future__ import annotations

import os
import sys

from agenta_ai_tools.examples.sales.v1.sales_tools_service_pb2 import ExtractOrderRequest
from agenta_ai_tools.examples.sales.v1.sales_tools_service_pb2_grpc import SalesToolsServiceStub
from agenta_ai_tools.examples.support.v1.support_tools_service_pb2 import ClassifyTicketRequest
from agenta_ai_tools.examples.support.v1.support_tools_service_pb2_grpc import SupportToolsServiceStub
from agenta_ai_tools.examples.text.v1.text_tools_service_pb2 import SummarizeRequest
from agenta_ai_tools.examples.text.v1.text_tools_service_pb2_grpc import TextToolsServiceStub

from agenta_ai import AgentaError, SyncClient

ORDER = "Two blue mugs and a teapot to Ada Lovelace, 12 St James's Square, London."
MEETING = "The meeting on Monday was moved to Tuesday at ten, because the room is taken."


def main() -> None:
    """Call each tool once, and print what it gives."""
    target = os.environ.get("AGENTA_AI_TARGET", "127.0.0.1:50051")
    with SyncClient(target, api_key=os.environ.get("AGENTA_AI_API_KEY")) as client:
        channel = client.channel()
        ticket = ClassifyTicketRequest.Arguments(ticket="My invoice is wrong.")
        classified = SupportToolsServiceStub(channel).ClassifyTicket(ClassifyTicketRequest(arguments=ticket))
        print(f"{classified.result.queue}, urgency {classified.result.urgency}")
        text = ExtractOrderRequest.Arguments(text=ORDER)
        order = SalesToolsServiceStub(channel).ExtractOrder(ExtractOrderRequest(arguments=text)).result
        items = ", ".join(f"{item.quantity} {item.product}" for item in order.items)
        print(f"{items} for {order.customer.name}, {order.customer.address.city}")
        meeting = SummarizeRequest.Arguments(text=MEETING)
        print(TextToolsServiceStub(channel).Summarize(SummarizeRequest(arguments=meeting)).result.text)


if __name__ == "__main__":
    try:
        main()
    except AgentaError as error:
        sys.exit(f"{error}")
