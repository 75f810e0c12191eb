"""The service in front of a stand-in for Agenta, for tests of your own code: real gRPC, no account, no model.

For example::

    from agenta_ai import SyncClient
    from agenta_ai_server.testing import Fault, in_turn, run_service

    with run_service() as service, SyncClient(service.address) as client:
        service.standin.respond = in_turn(Fault(answer="lossy"))
        client.refine_prompt(...)  # fails: the refinement lacks the variables

pytest isn't required. For pytest, ``agenta_ai_server.testing.plugin`` provides a fixture.
"""

from __future__ import annotations

from agenta_ai_server.standin.answers import CannedResponse
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.received import Received
from agenta_ai_server.testing.service import LocalService, environment_for, run_service

__all__ = [
    "CannedResponse",
    "Fault",
    "LocalService",
    "Received",
    "StandIn",
    "environment_for",
    "in_turn",
    "run_service",
]
