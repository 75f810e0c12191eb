from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import httpx
import pytest
from upstream.recorded import CAPTURES, EXPECTED, FAILURES, SUCCESSES, UNUSABLE, recorded, trace_id

from agenta_ai_server.agenta import failures
from agenta_ai_server.agenta.explanation import explain
from agenta_ai_server.agenta.failures import Failure
from agenta_ai_server.agenta.http import HttpResponse
from agenta_ai_server.agenta.routes import INVOKE, RUN

if TYPE_CHECKING:
    from agenta_ai_server.agenta.routes.reply import Reply
    from agenta_ai_server.domain.values import Json

ROUTES = {"run": RUN, "invoke": INVOKE}

# Who can do something about it, and what, in the words of the sentence.
REMEDIES: list[tuple[Failure, str]] = [
    (failures.CREDENTIALS_REJECTED, "operator .* set a valid Agenta API key"),
    (failures.RATE_LIMITED, "Try again later"),
    (failures.NOT_DEPLOYED, "isn't deployed.* operator .* deploy it"),
    (failures.WRONG_INPUTS, "other inputs.* operator .* deploy one that fits"),
    (failures.UNFILLED_VARIABLES, "variables.* operator .* deploy one that fits"),
    (failures.NO_MODEL_CREDENTIAL, "no credential for the model.* operator .* add the provider's key in Agenta"),
    (failures.MODEL_CREDENTIAL_REJECTED, "credential.* operator .* renew the provider's key in Agenta"),
    (failures.UNKNOWN_MODEL, "operator .* another model"),
    (failures.PROVIDER_RATE_LIMITED, "limits the rate.* Try again later"),
    (failures.QUOTA_EXHAUSTED, "quota.* the owner of the account there"),
    (failures.PROMPT_TOO_LONG, "too long.* shorter"),
    (failures.PROVIDER_FAILED, "model's provider failed.* may have been billed"),
    (failures.AGENTA_API_DOWN, "can't reach Agenta's API.* operator .* all parts of Agenta"),
    (failures.UNAVAILABLE, "unavailable.* Try again later"),
    (failures.FAILED, "may have been billed.* operator .* logs of Agenta"),
    (failures.REJECTED, "operator .* check the address"),
    (failures.REJECTED_AFTER_RUN, "operator .* check the address"),
]


def read(case: str) -> Reply:
    answer = recorded(case)
    response = HttpResponse(answer.status, httpx.Headers(dict(answer.headers)), answer.body)
    return ROUTES[CAPTURES[case]["route"]].decode(response)


def test_every_recorded_exchange_is_expected_to_become_something() -> None:
    assert sorted([*SUCCESSES, *UNUSABLE, *EXPECTED]) == sorted(CAPTURES)
    assert len(EXPECTED) == sum(len(cases) for _, cases in FAILURES)
    assert [failure for failure, _ in REMEDIES] == [failure for failure, _ in FAILURES]


@pytest.mark.parametrize("case", EXPECTED)
def test_the_right_cause(case: str) -> None:
    assert failures.of_reply(read(case)) == EXPECTED[case]
    assert read(case).trace_id == trace_id(case)


@pytest.mark.parametrize("case", SUCCESSES)
def test_a_text(case: str) -> None:
    reply = read(case)
    assert failures.of_reply(reply) is None
    assert failures.problem_of(reply) == ""
    assert isinstance(reply.output, str)
    assert reply.trace_id == trace_id(case) != ""


@pytest.mark.parametrize("case", UNUSABLE)
def test_no_text(case: str) -> None:
    reply = read(case)
    assert failures.of_reply(reply) is None
    assert failures.problem_of(reply)


@pytest.mark.parametrize(("failure", "remedy"), REMEDIES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_right_remedy(failure: Failure, remedy: str) -> None:
    assert re.search(remedy, failure.message)
    assert failure.message.endswith(".")


def all_failures() -> list[Failure]:
    return [value for value in vars(failures).values() if isinstance(value, Failure)]


def test_what_is_retryable_can_have_bought_nothing() -> None:
    assert len(all_failures()) > 20
    for failure in all_failures():
        assert not (failure.retryable and failure.may_have_run), failure
        assert ("Nothing was" in failure.message) <= (not failure.may_have_run), failure
        assert ("may have been billed" in failure.message) <= failure.may_have_run, failure


def reply(status: int, body: bytes, headers: dict[str, str] | None = None) -> Reply:
    return RUN.decode(HttpResponse(status, httpx.Headers(headers or {}), body))


PAGE = b"<html><h1>Bad Gateway</h1></html>"
TRACED = b'{"trace_id": "a66e7c55acfd75632968e0b8df25282c", "status": {"code": 503, "message": "x"}}'


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (502, PAGE, failures.PROXY_WITHOUT_AGENTA),
        (502, b"", failures.PROXY_WITHOUT_AGENTA),
        (502, TRACED, failures.FAILED),
        (504, PAGE, failures.PROXY_TIMEOUT),
        (504, TRACED, failures.AGENTA_TIMEOUT),
        (503, PAGE, failures.UNAVAILABLE),
        (503, b"", failures.UNAVAILABLE),
        (503, b'{"detail": "Service Unavailable"}', failures.UNAVAILABLE),
        (503, TRACED, failures.FAILED),
        (424, b"", failures.PROVIDER_REFUSED),
        (404, b'{"detail": "Not Found"}', failures.REJECTED),
        (404, b"404 page not found\n", failures.PROXY_WITHOUT_ROUTE),
        (404, b"", failures.PROXY_WITHOUT_ROUTE),
        (405, PAGE, failures.PROXY_WITHOUT_ROUTE),
    ],
)
def test_a_proxy_is_told_apart_from_agenta(status: int, body: bytes, expected: Failure) -> None:
    assert failures.of_reply(reply(status, body)) == expected


def test_a_trace_in_the_headers_counts() -> None:
    found = reply(503, b"", {"x-ag-trace-id": "a66e7c55acfd75632968e0b8df25282c"})
    assert failures.of_reply(found) == failures.FAILED


@pytest.mark.parametrize(
    "message",
    [
        "litellm.BadRequestError: the prompt was \"Client error '404 Not Found' for url 'x/revisions/retrieve'\"",
        "Unexpected: Unreplaced variables in curly template: ['a']",
        "he said litellm.RateLimitError: exceeded your current quota",
    ],
)
def test_what_a_prompt_says_decides_nothing(message: str) -> None:
    body = json.dumps({"trace_id": "a66e7c55acfd75632968e0b8df25282c", "status": {"message": message}}).encode()
    assert failures.of_reply(reply(500, body)) in (failures.FAILED, failures.PROVIDER_FAILED)


# Agenta's own sentence, for operators.

INPUTS: Json = {
    "prompt": "The secret recipe has three eggs and averyveryverylongword.",
    "context": "be\nvery   brief now",
}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Unreplaced variables in curly template: ['name'].", "Unreplaced variables in curly template: ['name']."),
        ("Incorrect API key provided: sk-wro**ng.", "Incorrect API key provided: …."),
        ("Got ApiKey our-key.0123 here", "Got … here"),
        ("Got our-key.0123", "Got …"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJhIjoxMjM0NTY3ODkwfQ.c2lnbmF0dXJl", "…"),
        ("for url 'http://10.0.0.7:8000/api/x' it failed", "for url '… it failed"),
        ("It quotes: recipe has three eggs, and more", "It quotes: … … … … and more"),
        ("One word averyveryverylongword.", "One word …"),
        ("please be very brief now", "please … … … …"),
        ("", ""),
    ],
)
def test_agentas_own_sentence_without_secrets_and_prompts(said: str, told: str) -> None:
    found = reply(500, json.dumps({"status": {"message": said}}).encode())
    assert explain(found, INPUTS, ["our-key.0123"]) == told


@pytest.mark.parametrize(
    ("characters", "told"),
    [(4_000, f"{'x y z ' * 30}end"), (100_000, "x y z x y z x y z x …"), (600_000, "x …"), (1_100_000, "")],
)
def test_the_longer_a_prompt_is_the_less_of_a_sentence_is_compared_with_it(characters: int, told: str) -> None:
    found = reply(500, json.dumps({"status": {"message": "x y z " * 30 + "end"}}).encode())
    assert explain(found, ["a " * (characters // 2)]) == told


def test_what_is_cut_off_hides_as_much_as_a_whole_sentence() -> None:
    found = reply(500, json.dumps({"status": {"message": "It quotes: recipe has three eggs, and more"}}).encode())
    assert explain(found, [INPUTS, "a " * 70_000]) == "It quotes: … … … … and …"


@pytest.mark.parametrize("case", EXPECTED)
def test_no_explanation_holds_an_address_or_a_stack_trace(case: str) -> None:
    found = explain(read(case), INPUTS)
    assert "http" not in found
    assert "Traceback" not in found
    assert len(found) <= 400
