from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.settings import GROUPS, Settings, SettingsError, fields_of, load, read
from agenta_ai_server.settings.load import REMOVED, RENAMED
from agenta_ai_server.settings.schema import names

if TYPE_CHECKING:
    from pathlib import Path

AUTH = {"AGENTA_AI_GRPC_AUTH": "none"}
FOUR = {
    "AGENTA_AI_SERVICES_API_URL": "https://cloud.agenta.ai",
    "AGENTA_AI_SERVICES_API_KEY": "the-secret",
    "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
    "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": "ai-refine",
}


def faults(environment: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as error:
        load(environment)
    return error.value.faults


def test_all_four_enable_the_feature() -> None:
    settings, warnings = load(AUTH | FOUR)
    assert settings.missing == ()
    assert warnings == []
    assert "the-secret" not in repr(settings)


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("value", ["", "  "])
def test_without_one_of_the_four_it_is_disabled(name: str, value: str) -> None:
    settings, _ = load(AUTH | FOUR | {name: value})
    assert settings.missing == (name,)


def test_defaults() -> None:
    settings, warnings = load(AUTH)
    assert settings.missing == tuple(FOUR)
    assert settings.listen == "127.0.0.1:50051"
    assert settings.reflection == "on"
    assert warnings == []


def test_every_fault_is_told_at_once_and_no_secret(tmp_path: Path) -> None:
    told = faults(
        {
            "AGENTA_AI_SERVICES_API_URL": "https://user:the-secret@cloud.agenta.ai",
            "AGENTA_AI_SERVICES_API_KEY": "the-secret",
            "AGENTA_AI_SERVICES_API_KEY_FILE": "also",
            "AGENTA_AI_GRPC_LISTEN": "everywhere",
            "AGENTA_AI_GRPC_REFLECTION": "maybe",
            "AGENTA_AI_GRPC_UPSTREAM_CA_FILE": str(tmp_path / "none.pem"),
            "AGENTA_AI_GRPC_MAX_CALL_SECONDS": "601",
            "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS": "soon",
            "AGENTA_AI_GRPC_REDIS_URL": "http://:the-secret@redis",
        }
    )
    assert sorted(fault.split(":")[0] for fault in told) == [
        "AGENTA_AI_GRPC_AUTH",
        "AGENTA_AI_GRPC_LISTEN",
        "AGENTA_AI_GRPC_MAX_CALL_SECONDS",
        "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS",
        "AGENTA_AI_GRPC_REDIS_URL",
        "AGENTA_AI_GRPC_REFLECTION",
        "AGENTA_AI_GRPC_UPSTREAM_CA_FILE",
        "AGENTA_AI_SERVICES_API_KEY and AGENTA_AI_SERVICES_API_KEY_FILE are both set",
        "AGENTA_AI_SERVICES_API_URL",
    ]
    assert "the-secret" not in "".join(told)
    assert all(fault.endswith(".") and ".." not in fault for fault in told)


def test_what_is_found_before_the_start_and_not_at_the_first_call(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("no certificate")
    told = faults(
        AUTH
        | FOUR
        | {
            "AGENTA_AI_SERVICES_API_KEY": "the secret",
            "AGENTA_AI_GRPC_UPSTREAM_CA_FILE": str(pem),
            "AGENTA_AI_GRPC_UPSTREAM_PROXY": "the-secret@proxy",
        }
    )
    assert told == [
        "AGENTA_AI_SERVICES_API_KEY: must be visible ASCII characters, without spaces or line breaks.",
        f"AGENTA_AI_GRPC_UPSTREAM_CA_FILE: {pem} contains no certificate in PEM format.",
        "AGENTA_AI_GRPC_UPSTREAM_PROXY: the proxy's URL must have the scheme http or https, and a host. "
        "Give one such as http://proxy.example:3128.",
    ]
    with_another_fault = {
        "AGENTA_AI_GRPC_LOG_LEVEL": "loud",
        "AGENTA_AI_GRPC_LISTEN": "0.0.0.0:1",
        "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS": "50",
        "AGENTA_AI_GRPC_MAX_CALL_SECONDS": "5",
    }
    assert [fault.partition(":")[0] for fault in faults(AUTH | with_another_fault)] == [
        "AGENTA_AI_GRPC_LOG_LEVEL",
        "AGENTA_AI_GRPC_AUTH",
        "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS",
    ]
    assert faults(AUTH | {"AGENTA_AI_GRPC_MAX_CALL_SECONDS": "1.2"}) == [
        "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS: must be less than AGENTA_AI_GRPC_MAX_CALL_SECONDS, which is 1.2, by "
        "more than 0.25, or every call would be refused."
    ]


def test_only_names_of_ours_are_settings() -> None:
    others = {"auth": "none", "allow_no_auth": "true", "listen": "0.0.0.0:1", "log_level": "loud", "api_key": "x"}
    assert faults(others)[0].startswith("AGENTA_AI_GRPC_AUTH: must be set")
    settings, _ = load(AUTH | others | {"AGENTA_AI_GRPC_LOG_LEVEL": "DEBUG"})
    assert (settings.listen, settings.log_level, settings.api_key) == ("127.0.0.1:50051", "debug", None)


@pytest.mark.parametrize("size", [0, 108])
def test_the_path_of_a_socket_fits_its_address(size: int) -> None:
    assert faults(AUTH | {"AGENTA_AI_GRPC_LISTEN": "unix:" + "é" * (size // 2)}) == [
        f"AGENTA_AI_GRPC_LISTEN: the path of a socket has 1 to 107 bytes, and this one has {size}."
    ]


@pytest.mark.parametrize(
    ("in_flight", "files", "connections"), [(4000, 12_500, 8000), (4000, 300, 150), (10, 1024, 514), (1, -1, 2**31 - 1)]
)
def test_callers_leave_files_for_all_else(in_flight: int, files: int, connections: int) -> None:
    settings, _ = load(AUTH | {"AGENTA_AI_GRPC_MAX_IN_FLIGHT": str(in_flight)})
    assert settings.max_connections(files) == connections


def test_auth_must_be_said() -> None:
    assert faults({}) == [
        "AGENTA_AI_GRPC_AUTH: must be set: any of api_keys, jwt, agenta, mtls, or none to admit everybody who can "
        "connect."
    ]


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:1", "10.0.0.1:1"])
def test_no_auth_is_for_loopback(listen: str) -> None:
    environment = AUTH | {"AGENTA_AI_GRPC_LISTEN": listen}
    assert "AGENTA_AI_GRPC_ALLOW_NO_AUTH=true" in faults(environment)[0]
    settings, _ = load(environment | {"AGENTA_AI_GRPC_ALLOW_NO_AUTH": "true"})
    assert settings.listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.1.2.3:65535", "localhost:80", "[::1]:80", "unix:/tmp/a"])
def test_loopback(listen: str) -> None:
    settings, _ = load(AUTH | {"AGENTA_AI_GRPC_LISTEN": listen})
    assert settings.is_loopback


@pytest.mark.parametrize(
    "listen", ["127.0.0.1", ":80", "127.0.0.1:65536", "127.0.0.1:x", "a b:1", "::1:80", "host:1", "1.2.3:1", "[::x]:1"]
)
def test_no_address(listen: str) -> None:
    assert faults(AUTH | {"AGENTA_AI_GRPC_LISTEN": listen})[0].startswith(
        "AGENTA_AI_GRPC_LISTEN: must be an IP address and a port"
    )


def test_secrets_from_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("the-secret\n")
    environment = AUTH | FOUR | {"AGENTA_AI_SERVICES_API_KEY": "", "AGENTA_AI_SERVICES_API_KEY_FILE": str(key)}
    settings, warnings = load(environment)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "the-secret"
    assert warnings == []
    key.write_text(" \n")
    assert faults(environment) == [f"AGENTA_AI_SERVICES_API_KEY_FILE: {key} is empty."]
    key.write_bytes(b"\xff")
    assert faults(environment) == [f"AGENTA_AI_SERVICES_API_KEY_FILE: {key} is not text."]
    key.write_bytes(b"\xef\xbb\xbfthe-secret\r\n")
    assert load(environment)[0].api_key == settings.api_key, "a byte order mark is not part of the key"
    key.write_text("'the-secret'")
    assert faults(environment) == ["AGENTA_AI_SERVICES_API_KEY_FILE: must not be in quotes: remove them."]
    key.unlink()
    assert faults(environment) == [f"AGENTA_AI_SERVICES_API_KEY_FILE: can't read {key}: No such file or directory."]


def test_an_unknown_name_is_a_warning_with_a_hint() -> None:
    ours = ("AGENTA_AI_GRPC_LISTENN", "AGENTA_AI_GRPC_XY_CIRCUMFERENCE", "AGENTA_AI_SERVICES_API_KEYS")
    names = (*ours, "AGENTA_AI_OTHER", "AGENTA_AI_SERVICES_SOMETHING_ELSE", "AGENTA_API_KEY")
    _, warnings = load(AUTH | dict.fromkeys(names, "x"))
    assert warnings == [
        "AGENTA_AI_GRPC_LISTENN is unknown and has no effect: did you mean AGENTA_AI_GRPC_LISTEN?",
        "AGENTA_AI_GRPC_XY_CIRCUMFERENCE is unknown and has no effect: remove it.",
        "AGENTA_AI_SERVICES_API_KEYS is unknown and has no effect: did you mean AGENTA_AI_SERVICES_API_KEY?",
    ]


API_KEYS = {"AGENTA_AI_GRPC_AUTH": "api_keys", "AGENTA_AI_GRPC_API_KEYS_FILE": "keys.json"}
JWT = {
    "AGENTA_AI_GRPC_AUTH": "jwt",
    "AGENTA_AI_GRPC_JWT_ISSUER": "https://issuer.example",
    "AGENTA_AI_GRPC_JWT_AUDIENCE": "agenta-ai",
    "AGENTA_AI_GRPC_JWT_JWKS_URL": "https://issuer.example/jwks",
}
AGENTA = {
    "AGENTA_AI_GRPC_AUTH": "agenta",
    "AGENTA_AI_SERVICES_API_URL": "https://cloud.agenta.ai",
    "AGENTA_AI_GRPC_AGENTA_ALLOW": "*",
}
TLS = {"AGENTA_AI_GRPC_TLS_CERT_FILE": "server.pem", "AGENTA_AI_GRPC_TLS_KEY_FILE": "server.key"}
MTLS = TLS | {
    "AGENTA_AI_GRPC_AUTH": "mtls",
    "AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE": "ca.pem",
    "AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE": "identities.json",
}
ALL_MODES = API_KEYS | JWT | AGENTA | MTLS | {"AGENTA_AI_GRPC_AUTH": " mtls ,agenta,jwt, api_keys,"}


@pytest.mark.parametrize("environment", [API_KEYS, JWT, AGENTA, MTLS, ALL_MODES, API_KEYS | TLS])
@pytest.mark.parametrize("listen", ["127.0.0.1:1", "0.0.0.0:1"])
def test_modes(environment: dict[str, str], listen: str) -> None:
    _, warnings = load(environment | {"AGENTA_AI_GRPC_LISTEN": listen})
    in_plaintext = listen == "0.0.0.0:1" and "AGENTA_AI_GRPC_TLS_CERT_FILE" not in environment
    assert [warning.partition(" accepts ")[0] for warning in warnings] == (
        ["AGENTA_AI_GRPC_LISTEN: 0.0.0.0:1"] if in_plaintext else []
    )


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.rpartition("GRPC_")[2] not in names}


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"AGENTA_AI_GRPC_AUTH": "passwords"}, "AGENTA_AI_GRPC_AUTH: must be 'api_keys', 'jwt', 'agenta', 'mtls' or "),
        (API_KEYS | {"AGENTA_AI_GRPC_AUTH": "none,api_keys"}, "AGENTA_AI_GRPC_AUTH: 'none' admits everybody, so it "),
        (without(API_KEYS, "API_KEYS_FILE"), "AGENTA_AI_GRPC_AUTH: 'api_keys' needs AGENTA_AI_GRPC_API_KEYS_FILE."),
        (without(JWT, "JWT_AUDIENCE"), "AGENTA_AI_GRPC_AUTH: 'jwt' needs AGENTA_AI_GRPC_JWT_AUDIENCE."),
        (without(JWT, "JWT_JWKS_URL"), "AGENTA_AI_GRPC_AUTH: 'jwt' needs either AGENTA_AI_GRPC_JWT_JWKS_URL or "),
        (JWT | {"AGENTA_AI_GRPC_JWT_JWKS_FILE": "jwks.json"}, "AGENTA_AI_GRPC_AUTH: 'jwt' needs either "),
        (JWT | {"AGENTA_AI_GRPC_JWT_CLAIMS": "user"}, "AGENTA_AI_GRPC_JWT_CLAIMS: must be pairs such as name=value"),
        (
            JWT | {"AGENTA_AI_GRPC_JWT_CLAIMS": "user=a=b"},
            "AGENTA_AI_GRPC_JWT_CLAIMS: must be pairs such as name=value",
        ),
        (
            {"AGENTA_AI_GRPC_AUTH": "agenta", "AGENTA_AI_GRPC_AGENTA_ALLOW": "*"},
            "AGENTA_AI_GRPC_AUTH: 'agenta' needs AGENTA_AI_SERVICES_API_URL.",
        ),
        (AGENTA | {"AGENTA_AI_GRPC_AGENTA_ALLOW": ""}, "AGENTA_AI_GRPC_AGENTA_ALLOW: must be set"),
        (AGENTA | {"AGENTA_AI_GRPC_AGENTA_ALLOW": "acme"}, "AGENTA_AI_GRPC_AGENTA_ALLOW: must be ids of Agenta"),
        (AGENTA | {"AGENTA_AI_GRPC_AGENTA_ALLOW": "*,01a1"}, "AGENTA_AI_GRPC_AGENTA_ALLOW: must be either ids or *"),
        (AGENTA | {"AGENTA_AI_GRPC_AGENTA_AUTH_SECONDS": "3601"}, "AGENTA_AI_GRPC_AGENTA_AUTH_SECONDS: must be less"),
        (API_KEYS | {"AGENTA_AI_GRPC_REQUIRED_PERMISSIONS": "edit"}, "AGENTA_AI_GRPC_REQUIRED_PERMISSIONS: must be "),
        (
            without(MTLS, "MTLS_PRINCIPALS_FILE"),
            "AGENTA_AI_GRPC_AUTH: 'mtls' needs AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE",
        ),
        (without(MTLS, "TLS_CLIENT_CA_FILE"), "AGENTA_AI_GRPC_AUTH: 'mtls' needs AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE."),
        (
            without(MTLS, "TLS_CERT_FILE", "TLS_KEY_FILE"),
            "AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE: needs AGENTA_AI_GRPC_TLS_",
        ),
        (
            without(API_KEYS | TLS, "TLS_KEY_FILE"),
            "AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE: each needs the other.",
        ),
    ],
)
def test_modes_that_lack_something(environment: dict[str, str], why: str) -> None:
    (fault,) = faults(environment)
    assert fault.startswith(why)


def test_names_and_pairs() -> None:
    settings, _ = load(
        ALL_MODES
        | {
            "AGENTA_AI_GRPC_JWT_CLAIMS": "organization=org_id, permissions=scope",
            "AGENTA_AI_GRPC_DISABLED_TOOLS": " tools.a ,tools.b,",
        }
    )
    assert settings.auth == ("mtls", "agenta", "jwt", "api_keys")
    assert settings.disabled_tools == ("tools.a", "tools.b")
    assert settings.jwt_claims == {"organization": "org_id", "permissions": "scope"}


def test_the_old_name_of_the_environment() -> None:
    new = "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG"
    settings, warnings = load(AUTH | FOUR | {new: "", "AGENTA_AI_SERVICES_ENVIRONMENT": "staging"})
    assert settings.environment_slug == "staging"
    assert warnings == [f"AGENTA_AI_SERVICES_ENVIRONMENT is deprecated: use {new} instead."]
    settings, _ = load(AUTH | FOUR | {"AGENTA_AI_SERVICES_ENVIRONMENT": "staging"})
    assert settings.environment_slug == "production"


def test_there_are_few_enough_to_remember() -> None:
    # 43, and twelve for what came later: route and connections to Agenta, who may come by it, usage, stored results,
    # the tools file, test cases.
    assert len(names()) <= 55


def test_each_says_what_it_is_and_when_to_set_it() -> None:
    for group in GROUPS:
        for name, field in fields_of(group):
            extra = field.json_schema_extra
            when = extra["when"] if isinstance(extra, dict) else None
            for sentence in (field.description, when):
                assert isinstance(sentence, str), name
                assert sentence[0].isupper(), name
                assert sentence[-1] in ".…", name


def test_the_groups_hold_all_settings_in_their_order() -> None:
    assert list(Settings.model_fields) == [field for group in GROUPS for field in group.model_fields]


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_a_fault(old: str, new: str) -> None:
    assert new in names()
    assert faults(AUTH | {old: "1"}) == [f"{old}: is now called {new}: rename it."]


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_setting_is_a_warning_that_says_what_holds_instead(name: str) -> None:
    _, warnings = load(AUTH | {name: "1"})
    assert warnings == [f"{name} no longer has an effect: {REMOVED[name]}"]


@pytest.mark.parametrize("value", ["open", "authenticated"])
def test_reflection_is_on_or_off(value: str) -> None:
    assert faults(AUTH | {"AGENTA_AI_GRPC_REFLECTION": value}) == ["AGENTA_AI_GRPC_REFLECTION: must be 'on' or 'off'."]


def test_what_is_right_can_be_used_to_look_further() -> None:
    reading = read(FOUR | {"AGENTA_AI_GRPC_RETRIES": "many", "AGENTA_AI_GRPC_LIMITS_FILE": "limits.toml"})
    assert [fault.partition(":")[0] for fault in reading.faults] == ["AGENTA_AI_GRPC_RETRIES", "AGENTA_AI_GRPC_AUTH"]
    assert str(reading.settings.limits_file) == "limits.toml"
    assert reading.settings.retries == 2


@pytest.mark.parametrize("seconds", [5, 60, 600])
def test_a_request_to_agenta_takes_no_longer_than_its_call(seconds: int) -> None:
    settings, _ = load(AUTH | {"AGENTA_AI_GRPC_MAX_CALL_SECONDS": str(seconds)})
    assert settings.max_upstream_seconds == min(seconds, 60)


def test_the_settings_need_no_http_client() -> None:
    clients = "{'httpx', 'aiohttp', 'yarl', 'requests', 'grpc'}"
    script = f"import sys, agenta_ai_server.settings; print(sorted({clients} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
