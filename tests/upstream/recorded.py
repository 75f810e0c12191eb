"""Every recorded exchange of Agenta's routes that run prompts, and the failure that each must become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenta_ai_server.agenta import failures
from agenta_ai_server.standin.answers import CannedResponse

if TYPE_CHECKING:
    from agenta_ai_server.agenta.failures import Failure

DATA = Path(__file__).parents[1] / "data"


def _read(name: str) -> list[dict[str, Any]]:
    captures: list[dict[str, Any]] = json.loads((DATA / name).read_text())
    return captures


# Those of the older file are read as the older route's, also where they came by another: that is what an operator gets
# who mistypes the address.
CAPTURES: dict[str, dict[str, Any]] = {
    **{capture["case"]: {"route": "run", **capture} for capture in _read("completion_captures.json")},
    **{f"new_{capture['case']}": capture for capture in _read("run_captures.json")},
}

SUCCESSES = [
    "success",
    "success_traceparent",
    "success_2",
    "env_dict",
    "env_slug_app_slug",
    "generate_deployed",
    "accept_sse",
    "bare_key_no_scheme",
    "app_only_no_env",
    "extra_input",
    "fstring_refiner",
    "jinja2_refiner",
    "mustache_refiner",
    "llm_slow_20s",
    "app_no_env",
    "mock_hello",
    "inline_ag_config",
    "nonjson",
    "llm_nonjson",
    "llm_fenced",
    "llm_empty",
    "llm_truncated",
    "new_app_env_selector",
    "new_app_env_no_selector",
    "new_app_only_latest",
    "new_app_revision_version",
    "new_traceparent",
    "new_run_traceparent",
    "new_session_id",
    "new_flags_stream",
    "new_any_accept",
    "new_run_accept_sse",
    "new_viewer",
    "new_null_input",
    "new_extra_input",
    "new_llm_empty",
    "new_run_llm_empty",
    "new_llm_badjson",
    "new_run_llm_badjson",
    "new_run_ignores-inputs",
    "new_run_no-guidelines",
    "new_run_no-rf",
    "new_run_refine-mustache",
    "new_run_refine-mustache-escaped",
    "new_run_refine-jinja2",
    "new_run_refine-fstring",
    "new_run_as-chat",
    "new_run_good-custom-provider",
]
"""Those that bring a text, whatever it is worth."""

UNUSABLE = [
    "v0_invoke",
    "dispatch_invoke",
    "mock_hello_v0",
    "health",
    "llm_refusal",
    "llm_toolcalls",
    "new_llm_refusal",
    "new_run_llm_refusal",
]
"""Those that are a 200 without a text."""

FAILURES: list[tuple[Failure, list[str]]] = [
    (
        failures.CREDENTIALS_REJECTED,
        [
            "bad_api_key",
            "bad_key",
            "no_auth",
            "bearer_garbage",
            "forbidden",
            "v0_health",
            "new_bad_key",
            "new_no_key",
        ],
    ),
    (failures.RATE_LIMITED, ["throttled_429", "throttled_429_v0"]),
    (
        failures.NOT_DEPLOYED,
        [
            "unknown_app",
            "unknown_app_2",
            "unknown_app_only",
            "unknown_app_no_env",
            "unknown_env",
            "unknown_env_2",
            "env_only",
            "env_not_deployed",
            "no_refs",
            "body_not_json",
            "body_list",
            "new_unknown_app",
            "new_not_deployed",
            "new_unknown_env",
            "new_env_selector_only",
            "new_no_references",
        ],
    ),
    (
        failures.WRONG_INPUTS,
        ["missing_input", "null_input", "new_wrong-inputs", "new_run_wrong-inputs", "new_missing_inputs"],
    ),
    (
        failures.UNFILLED_VARIABLES,
        [
            "design_doc_config",
            "designdoc",
            "new_wrong-inputs-nokeys",
            "new_run_wrong-inputs-nokeys",
            "new_trap-name",
            "new_run_trap-name",
        ],
    ),
    (
        failures.NO_MODEL_CREDENTIAL,
        ["no_provider_secret", "new_no-provider-key", "new_run_no-provider-key", "new_run_gpt-nope"],
    ),
    (failures.MODEL_CREDENTIAL_REJECTED, ["llm_401", "new_bad-provider-key", "new_run_bad-provider-key"]),
    (failures.UNKNOWN_MODEL, ["new_llm_404", "new_run_llm_404"]),
    (failures.PROVIDER_RATE_LIMITED, ["llm_429", "llm429", "new_llm_429", "new_run_llm_429"]),
    (failures.QUOTA_EXHAUSTED, ["new_llm_quota", "new_run_llm_quota"]),
    (failures.PROMPT_TOO_LONG, ["llm_400", "new_llm_400", "new_run_llm_400"]),
    (
        failures.PROVIDER_FAILED,
        [
            "llm_500",
            "llm500",
            "llm_down",
            "new_llm_500",
            "new_run_llm_500",
            "new_llm_503",
            "new_run_llm_503",
        ],
    ),
    (failures.AGENTA_API_DOWN, ["api_backend_down_cached_auth"]),
    (failures.UNAVAILABLE, ["api_backend_down"]),
    (failures.FAILED, ["inputs_list", "inputs_str", "stream_true_config"]),
    (
        failures.REJECTED,
        ["project_id_query", "get", "unknown_path", "v0_invalid_body_422", "new_malformed_reference"],
    ),
    (failures.REJECTED_AFTER_RUN, ["new_sse", "new_ndjson"]),
]
EXPECTED = {case: failure for failure, cases in FAILURES for case in cases}


def recorded(case: str) -> CannedResponse:
    """The response as the stand-in can send it."""
    response = CAPTURES[case]["response"]
    body = response["body"]
    return CannedResponse(
        response["status"],
        response.get("headers") or {},
        body.encode() if isinstance(body, str) else json.dumps(body).encode(),
    )


def trace_id(case: str) -> str:
    body = CAPTURES[case]["response"]["body"]
    return str(body.get("trace_id", "")) if isinstance(body, dict) else ""
