"""The prompts that ``agenta-ai-server dev`` deploys besides the refine prompt, to make tools from."""

from __future__ import annotations

from agenta_ai_server.standin.canned import MODEL, CannedPrompt

_CLASSIFICATION = {
    "type": "object",
    "additionalProperties": False,
    "required": ["topic", "score"],
    "properties": {
        "topic": {"type": "string", "enum": ["price", "quality", "service", "other"]},
        "score": {"type": "integer"},
    },
}


def samples(environment: str) -> list[CannedPrompt]:
    """Return the prompts.

    Args:
        environment: Slug of the environment that they are deployed to.
    """
    classify = {
        "messages": [
            {"role": "system", "content": "Say what customers' feedback is about, and score it from 1 to 5."},
            {"role": "user", "content": "The feedback, in the language {{language}}:\n{{feedback}}"},
        ],
        "template_format": "curly",
        "input_keys": ["feedback", "language"],
        "llm_config": {
            "model": MODEL,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "classification", "strict": True, "schema": _CLASSIFICATION},
            },
        },
    }
    shorten = {
        "messages": [{"role": "user", "content": "Shorten this to at most {{sentences}} sentences:\n{{text}}"}],
        "template_format": "curly",
        "input_keys": ["text", "sentences"],
        "llm_config": {"model": MODEL},
    }
    return [
        CannedPrompt(
            application="classify-feedback",
            environment=environment,
            kind="completion",
            inputs=("feedback", "language"),
            parameters={"prompt": classify},
            description="Says what customers' feedback is about, and scores it from 1 to 5.",
        ),
        CannedPrompt(
            application="shorten",
            environment=environment,
            kind="completion",
            inputs=("text", "sentences"),
            parameters={"prompt": shorten},
            description="Shortens a text.",
        ),
    ]
