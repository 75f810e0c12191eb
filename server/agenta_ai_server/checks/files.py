"""Checks of the settings and of the files that they name."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509

from agenta_ai_server.assembly.tools import described_tools, switched_off
from agenta_ai_server.auth.key_file import list_keys
from agenta_ai_server.auth.mtls import IdentityFile
from agenta_ai_server.auth.records import parse
from agenta_ai_server.checks.shared import Found, failed, ok, sentence, warning
from agenta_ai_server.files.contents import read_file
from agenta_ai_server.limits.policy import LimitPolicy
from agenta_ai_server.rpc.tls import Certificates, TlsFiles, read_certificates, unusual_key
from agenta_ai_server.tools.catalog import MAX_NAMES, check_disabled, tool_set

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.settings import Settings

SOON = 14 * 86_400


async def tools(settings: Settings) -> AsyncIterator[Found]:
    """Check which tools are available."""
    try:
        available = described_tools(settings.tools_file)
    except ValueError as error:
        yield failed(
            f"{settings.tools_file}: {sentence(error)} A running server keeps the tools of the last valid version.",
            "Correct AGENTA_AI_GRPC_TOOLS_FILE: docs/tools.md describes its format.",
        )
        return
    try:
        check_disabled([tool.name for tool in available], settings.disabled_tools)
    except ValueError as error:
        yield failed(sentence(error), "Correct AGENTA_AI_GRPC_DISABLED_TOOLS.")
        return
    found = tool_set(available, settings.missing, switched_off(settings))
    if found.is_disabled:
        missing = ", ".join(found.missing_settings)
        yield failed("AI services are disabled: callers get SERVICE_DISABLED.", f"Set {missing}.")
    elif found.tools:
        yield ok(f"Available: {_listed(found.tools)}.")
    else:
        yield warning("All tools are disabled.", "Remove one from AGENTA_AI_GRPC_DISABLED_TOOLS.")


def _listed(tools: Sequence[ToolSpec]) -> str:
    names = ", ".join(tool.name for tool in tools[:MAX_NAMES])
    return f"{names} and {len(tools) - MAX_NAMES} more" if len(tools) > MAX_NAMES else names


async def api_keys(settings: Settings) -> AsyncIterator[Found]:
    """Check that there is a key, and that other users can't read the file."""
    path = settings.api_keys_file
    if "api_keys" not in settings.auth or path is None:
        return
    if not path.exists():
        make = "create a key: agenta-ai-server keys create."
        if os.access(path.parent, os.W_OK):
            # A new file would take from a running server the keys that it still knows.
            yield warning(
                f"{path} doesn't exist, so there are no keys.", f"Restore it from a backup; if there is none, {make}"
            )
        else:
            yield failed(f"{path} doesn't exist and can't be created.", f"Make {path.parent} writable, and {make}")
        return
    try:
        keys = list_keys(path)
    except ValueError as error:
        yield failed(sentence(error), "Restore AGENTA_AI_GRPC_API_KEYS_FILE from a backup, or make it readable.")
        return
    if path.stat().st_mode & 0o077:
        yield warning(f"{path} is accessible to other users.", f"chmod 600 {path}")
    valid = sum(key.is_valid(time.time()) for key in keys)
    if not valid:
        yield warning(f"None of its {len(keys)} keys is valid.", "Create one: agenta-ai-server keys create.")
    else:
        yield ok(f"{valid} of {len(keys)} keys are valid.")


async def principals(settings: Settings) -> AsyncIterator[Found]:
    """Check the principals of certificates."""
    path = settings.mtls_principals_file
    if "mtls" not in settings.auth or path is None:
        return
    try:
        known = parse(IdentityFile, read_file(path)).principals
    except ValueError as error:
        yield failed(f"{path}: {sentence(error)}", "Correct AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE: docs/security.md.")
        return
    if known:
        yield ok(f"{len(known)} names in certificates are known.")
    else:
        yield warning(f"{path} has no principals, so no one may call.", "Add principals: docs/security.md.")


async def limits(settings: Settings) -> AsyncIterator[Found]:
    """Check that the policy can be read."""
    path = settings.limits_file
    if settings.limits == "off" or path is None:
        return
    try:
        names = [tool.name for tool in described_tools(settings.tools_file)]
    except ValueError:
        return  # the tools say so
    try:
        LimitPolicy.parse(read_file(path), names)
    except ValueError as error:
        yield failed(
            f"{path}: {sentence(error)}", "Correct AGENTA_AI_GRPC_LIMITS_FILE: docs/limits.md describes its format."
        )
    else:
        yield ok(f"{path} can be read.")


async def certificates(settings: Settings) -> AsyncIterator[Found]:
    """Check that the certificates can be used, and for how long."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return
    files = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    try:
        Certificates(files)
    except ValueError as error:
        yield failed(
            sentence(error),
            "Put a certificate and the key that belongs to it, both as PEM, into "
            "AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE, and check the clock: docs/security.md.",
        )
        return
    if unusual := unusual_key(read_certificates(read_file(files.certificate))[0]):
        yield warning(
            f"The key of {files.certificate} is {unusual}, which grpc's own clients can't use.",
            "Use a certificate with a key of type ECDSA P-256 or RSA.",
        )
    for path in filter(None, (files.certificate, files.client_authorities)):
        yield _lifetime(path)


def _lifetime(path: Path) -> Found:
    chain = x509.load_pem_x509_certificates(read_file(path))
    now = datetime.now(UTC)
    begin = max(each.not_valid_before_utc for each in chain)
    end = min(each.not_valid_after_utc for each in chain)
    left = (end - now).total_seconds()
    if begin > now:
        return failed(
            f"{path} isn't valid before {begin:%Y-%m-%d %H:%M} UTC.", "Correct the clock, or use another certificate."
        )
    if left < 0:
        return failed(f"A certificate in {path} expired at {end:%Y-%m-%d %H:%M} UTC.", f"Renew {path}.")
    if left < SOON:
        return warning(f"{path} expires in {left / 86_400:.1f} days.", "Renew it; the server reloads it.")
    return ok(f"{path} is valid for {left / 86_400:.0f} days.")
