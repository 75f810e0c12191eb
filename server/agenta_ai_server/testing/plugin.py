"""Fixtures for pytest. In a ``conftest.py``: ``pytest_plugins = ["agenta_ai_server.testing.plugin"]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.testing.service import run_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.testing.service import LocalService


@pytest.fixture
def agenta_ai_settings() -> Mapping[str, str]:
    """Settings of the service, by their names. Override this fixture to change them."""
    return {}


@pytest.fixture
def agenta_ai_service(agenta_ai_settings: Mapping[str, str]) -> Iterator[LocalService]:
    """The service in front of a stand-in for Agenta: see :func:`agenta_ai_server.testing.run_service`."""
    with run_service(agenta_ai_settings) as service:
        yield service
