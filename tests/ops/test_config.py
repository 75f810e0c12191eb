"""The command ``agenta-ai-server config``: what is in force, where it came from, and no secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agenta_ai_server import cli
from agenta_ai_server.settings import GROUPS
from agenta_ai_server.settings.schema import names

if TYPE_CHECKING:
    from pathlib import Path

NAMES = names()
TITLES = [group.title for group in GROUPS]
TRACES = "Traces, by OpenTelemetry's own variables"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    # It would last longer than these tests.
    monkeypatch.setattr("agenta_ai_server.telemetry.logs.configure", lambda *_: None)
    (tmp_path / "key").write_text("the-s3cret\n")
    for name, value in {
        "GRPC_VERBOSITY": "NONE",
        "GRPC_ENABLE_FORK_SUPPORT": "false",
        "COLUMNS": "100",
        "AGENTA_AI_GRPC_AUTH": "agenta,jwt",
        "AGENTA_AI_GRPC_AGENTA_ALLOW": "*",
        "AGENTA_AI_SERVICES_API_URL": "https://cloud.agenta.ai",
        "AGENTA_AI_SERVICES_API_KEY_FILE": str(tmp_path / "key"),
        "AGENTA_AI_SERVICES_ENVIRONMENT": "staging",
        "AGENTA_AI_GRPC_JWT_ISSUER": "https://issuer.example",
        "AGENTA_AI_GRPC_JWT_AUDIENCE": "agenta-ai",
        "AGENTA_AI_GRPC_JWT_JWKS_URL": "https://issuer.example/jwks",
        "AGENTA_AI_GRPC_JWT_CLAIMS": "plan=tier,user=name",
        "AGENTA_AI_GRPC_RETRY_UNSAFE": "True",
        "AGENTA_AI_GRPC_MAX_CALL_SECONDS": "90.0",
        "AGENTA_AI_GRPC_REDIS_URL": "redis://:the-s3cret@redis:6379/0",
        "AGENTA_AI_GRPC_UPSTREAM_PROXY": "http://me:the-s3cret@proxy:3128",
    }.items():
        monkeypatch.setenv(name, value)


def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["config", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "the-s3cret" not in out + err
    assert err == "agenta-ai-server: AGENTA_AI_SERVICES_ENVIRONMENT is deprecated: use " + (
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG instead.\n"
    )
    rows = json.loads(out)
    assert [row["name"] for row in rows] == NAMES
    found = {row["name"].removeprefix("AGENTA_AI_"): (row["value"], row["source"]) for row in rows}
    assert found["SERVICES_API_KEY"] == ("********", f"file {tmp_path / 'key'}")
    assert found["GRPC_REDIS_URL"] == ("********", "environment")
    assert found["GRPC_UPSTREAM_PROXY"] == ("********", "environment")
    assert found["SERVICES_ENVIRONMENT_SLUG"] == ("staging", "environment, as AGENTA_AI_SERVICES_ENVIRONMENT")
    assert found["GRPC_AUTH"] == ("agenta,jwt", "environment")
    assert found["GRPC_JWT_CLAIMS"] == ("plan=tier,user=name", "environment")
    assert found["GRPC_RETRY_UNSAFE"] == ("true", "environment")
    assert found["GRPC_MAX_CALL_SECONDS"] == ("90", "environment")
    assert found["GRPC_RESULT_TTL_SECONDS"] == ("600", "default")
    assert found["GRPC_TLS_CERT_FILE"] == ("", "default")
    assert {row["section"] for row in rows} == set(TITLES)


def test_what_is_printed_can_be_set(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["config", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    for row in first:
        if row["value"] != "********":
            monkeypatch.setenv(row["name"], row["value"])
    assert cli.main(["config", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["value"]) for row in again] == [(row["name"], row["value"]) for row in first]


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_table(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["config"]) == 0
    out = capsys.readouterr().out
    assert "the-s3cret" not in out
    lines = out.splitlines()
    assert lines[0] == "Agenta"
    assert [line for line in lines if line and not line.startswith(" ")] == TITLES
    words = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert words["AGENTA_AI_GRPC_LISTEN"] == ["127.0.0.1:50051", "default"]
    assert words["AGENTA_AI_GRPC_TLS_CERT_FILE"] == ["-", "not", "set"]


def test_wrong_settings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTA_AI_GRPC_RETRIES", "many")
    monkeypatch.setenv("AGENTA_AI_GRPC_JWT_ISSUER", "")
    assert cli.main(["config"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "AGENTA_AI_GRPC_RETRIES: " in err
    assert "'jwt' needs AGENTA_AI_GRPC_JWT_ISSUER." in err


SEVERAL_FAULTS = {
    "AGENTA_AI_GRPC_AUHT": "none",  # misspelt
    "AGENTA_AI_GRPC_RETRIES": "many",
    "AGENTA_AI_GRPC_RESULT_STORAGE": "encrypted",
    "AGENTA_AI_GRPC_RESULT_KEYS_FILE": "/none/keys",
    "AGENTA_AI_GRPC_LIMITS_FILE": "/none/limits.toml",
    "AGENTA_AI_GRPC_TLS_CERT_FILE": "/none/cert.pem",
    "AGENTA_AI_GRPC_TLS_KEY_FILE": "/none/key.pem",
}
ALL_FAULTS = [
    "AGENTA_AI_GRPC_RETRIES: must be a valid integer.",
    "AGENTA_AI_GRPC_AUTH: must be set: any of api_keys, jwt, agenta, mtls, or none to admit everybody who can connect.",
    "AGENTA_AI_GRPC_AUHT is unknown and has no effect: did you mean AGENTA_AI_GRPC_AUTH?",
    "AGENTA_AI_GRPC_LIMITS_FILE: can't read /none/limits.toml: No such file or directory.",
    "AGENTA_AI_GRPC_RESULT_KEYS_FILE: can't read /none/keys: No such file or directory.",
    "AGENTA_AI_GRPC_TLS_CERT_FILE: can't read /none/cert.pem: No such file or directory.",
    "AGENTA_AI_GRPC_TLS_KEY_FILE: can't read /none/key.pem: No such file or directory.",
]


@pytest.mark.parametrize("command", ["serve", "config", "check"])
def test_every_command_lists_all_faults(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AGENTA_AI_SERVICES_API_KEY_FILE")
    monkeypatch.delenv("AGENTA_AI_SERVICES_ENVIRONMENT")
    for name, value in SEVERAL_FAULTS.items():
        monkeypatch.setenv(name, value)
    arguments = ["check", "--json"] if command == "check" else [command]
    assert cli.main(arguments) == (1 if command == "check" else 2)
    out, err = capsys.readouterr()
    if command == "check":
        assert [each["said"] for each in json.loads(out)["findings"] if each["state"] == "failed"] == ALL_FAULTS
    else:
        assert out == ""
        assert err == "\n  ".join(["agenta-ai-server can't start with these settings:", *ALL_FAULTS]) + "\n"


def test_config_shows_the_settings_although_a_file_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTA_AI_GRPC_LIMITS_FILE", "/none/limits.toml")
    assert cli.main(["config"]) == 2
    out, err = capsys.readouterr()
    assert "/none/limits.toml" in out
    assert "AGENTA_AI_GRPC_LIMITS_FILE: can't read /none/limits.toml: No such file or directory." in err


def test_it_makes_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty file of keys would revoke those that a running server still knows."""
    path = tmp_path / "keys.json"
    monkeypatch.setenv("AGENTA_AI_GRPC_AUTH", "api_keys")
    monkeypatch.setenv("AGENTA_AI_GRPC_API_KEYS_FILE", str(path))
    assert cli.main(["config"]) == 0
    assert not path.exists()
