"""The server's certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.files.reloading import ReloadingFile

if TYPE_CHECKING:
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.rpc.tls import Certificates
    from agenta_ai_server.settings import Settings


def build_certificates(settings: Settings, resources: Resources) -> Certificates | None:
    """Build the part that makes the listener's TLS credentials; ``None`` for plaintext."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return None
    from agenta_ai_server.rpc.tls import Certificates, TlsFiles, read_authorities, read_certificates, read_key

    found = len(resources.faults)
    for setting, path, read in (
        ("AGENTA_AI_GRPC_TLS_CERT_FILE", settings.tls_cert_file, read_certificates),
        ("AGENTA_AI_GRPC_TLS_KEY_FILE", settings.tls_key_file, read_key),
        ("AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE", settings.tls_client_ca_file, read_authorities),
    ):
        with resources.faults_of(setting):
            if path:
                ReloadingFile[object](path, read)
    if len(resources.faults) > found:
        return None
    # Each file is valid by itself; together they may still not match.
    with resources.faults_of("AGENTA_AI_GRPC_TLS_CERT_FILE"):
        return Certificates(TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file))
    return None
