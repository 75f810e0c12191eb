from __future__ import annotations

import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.trust import trusting_nobody

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

# The authorities of every context that there is after a start that fails for lack of settings.
FIND_AUTHORITIES = (
    "import gc, ssl, sys, agenta_ai_server.cli; assert agenta_ai_server.cli.main(['serve']) == 2; "
    "assert 'aiohttp' in sys.modules; gc.unfreeze(); "
    "print(sum(len(each.get_ca_certs()) for each in gc.get_objects() if isinstance(each, ssl.SSLContext)))"
)


def test_the_public_authorities_are_left_out_for_a_while(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with trusting_nobody():
        assert ssl.create_default_context().get_ca_certs() == []
    assert len(ssl.create_default_context().get_ca_certs()) >= 1


def test_the_start_loads_no_authorities_that_are_not_used(ca_file: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(ca_file)}
    found = subprocess.run(
        [sys.executable, "-c", FIND_AUTHORITIES], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout == "0\n"
