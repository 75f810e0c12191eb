"""The shipped prompt: it takes what the service sends, gives what the service reads, and can be recognized."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import jsonschema
import pytest
from calls import refine

from agenta_ai_server.tools.refine_prompt import answer, prompt
from agenta_ai_server.tools.refine_prompt.formats import FORMATS, READ

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

PROMPT = prompt.parameters("gpt-4o-mini")["prompt"]
SCHEMA = PROMPT["llm_config"]["response_format"]["json_schema"]["schema"]
TEXTS = [message["content"] for message in PROMPT["messages"]]


async def test_its_inputs_are_those_that_the_service_sends(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    await stub.CallTool(refine({"messages": [{"role": "user", "content": "Hi"}]}), timeout=30)
    sent = json.loads(standin.requests[-1].body)
    assert set(sent["data"]["inputs"]) == set(PROMPT["input_keys"]) == set(prompt.INPUTS)


def test_its_texts_name_the_inputs_once_each_and_no_other_variable() -> None:
    used = frozenset().union(*(READ["curly"](text) for text in TEXTS))
    assert used == set(prompt.INPUTS)
    # Agenta takes each pair of double braces for a variable, also one that it couldn't resolve.
    assert sorted(re.findall(r"\{\{(.*?)\}\}", "\n".join(TEXTS), re.DOTALL)) == sorted(prompt.INPUTS)


def test_its_answer_is_what_the_service_reads() -> None:
    written = {"messages": [{"role": "user", "content": "Hi {{name}}"}], "summary": "Shorter."}
    jsonschema.validate(written, SCHEMA)
    read = answer.parse(json.dumps(written))
    assert (read.messages, read.summary) == ((("user", "Hi {{name}}"),), "Shorter.")


@pytest.mark.parametrize("schema", [SCHEMA, SCHEMA["properties"]["messages"]["items"]])
def test_its_schema_is_strict_as_openai_has_it(schema: dict[str, object]) -> None:
    # https://platform.openai.com/docs/guides/structured-outputs: all fields required, no additional ones.
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(schema["properties"])  # type: ignore[call-overload]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_it_explains_each_template_format(name: str) -> None:
    assert f"- {name}: " in TEXTS[0]


def test_it_has_the_digest_of_its_version() -> None:
    parameters = prompt.parameters("any-model")
    assert prompt.digest(parameters) == prompt.DIGESTS[prompt.version() - 1], (
        f"The prompt has changed: raise its version in prompt.toml, and append {prompt.digest(parameters)} to DIGESTS."
    )
    assert len(prompt.DIGESTS) == prompt.version()


def test_it_is_recognized_with_any_model_and_in_no_other_wording() -> None:
    parameters = prompt.parameters("another/model")
    assert prompt.shipped_version(parameters) == prompt.version()
    assert prompt.model_of(parameters) == "another/model"
    parameters["prompt"]["messages"][0]["content"] += " "
    assert prompt.shipped_version(parameters) is None
    assert prompt.shipped_version({}) is None
    assert prompt.model_of({"prompt": []}) == ""
