"""The benchmarks measure what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bench.rig import deployed

if TYPE_CHECKING:
    from pathlib import Path


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no setting AGENTA_AI_GRPC_MAX_WAITING$"):
        deployed(tmp_path, "http://127.0.0.1:9", max_waiting=48)


def test_settings_are_passed_to_the_service(tmp_path: Path) -> None:
    assert deployed(tmp_path, "http://127.0.0.1:9", max_in_flight=96)["AGENTA_AI_GRPC_MAX_IN_FLIGHT"] == "96"
