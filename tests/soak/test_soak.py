"""Calls and faults of every kind, mixed, over real processes: nothing of them may stay behind in the service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SLOW

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not SLOW, reason="takes minutes: make test-slow")
def test_a_hundred_thousand_calls_with_mixed_faults_leave_nothing_behind() -> None:
    # In a process of its own, for it is the callers of a hundred connections.
    soak = subprocess.run([sys.executable, "-m", "bench.soak"], cwd=ROOT, capture_output=True, text=True)
    assert soak.returncode == 0, soak.stderr + soak.stdout
