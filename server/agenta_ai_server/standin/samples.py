"""Prompts that ``agenta-ai-server dev`` has deployed, besides the one that refines prompts, to make tools of."""

from __future__ import annotations

from agenta_ai_server.standin.canned import MODEL, CannedPrompt

_CLASSIFICATION = {
    "type": "object",
    "additionalProperties": False,
    "required": ["queue", "urgency"],
    "properties": {
        "queue": {"type": "string", "enum": ["billing", "shipping", "technical", "other"]},
        "urgency": {"type": "integer"},
    },
}


def samples(environment: str) -> list[CannedPrompt]:
    """Return the prompts.

    Args:
        environment: Slug of the environment that they are deployed to.
    """
    classify = {
        "messages": [
            {"role": "system", "content": "Assign a support ticket to a queue. Say how urgent it is, from 1 to 5."},
            {"role": "user", "content": "The ticket, in the language {{language}}:\n{{ticket}}"},
        ],
        "template_format": "curly",
        "input_keys": ["ticket", "language"],
        "llm_config": {
            "model": MODEL,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "classification", "strict": True, "schema": _CLASSIFICATION},
            },
        },
    }
    summarize = {
        "messages": [{"role": "user", "content": "Summarize this in at most {{sentences}} sentences:\n{{text}}"}],
        "template_format": "curly",
        "input_keys": ["text", "sentences"],
        "llm_config": {"model": MODEL},
    }
    return [
        CannedPrompt(
            application="classify-ticket",
            environment=environment,
            kind="completion",
            inputs=("ticket", "language"),
            parameters={"prompt": classify},
            description="Assigns a support ticket to a queue, and says how urgent it is.",
        ),
        CannedPrompt(
            application="summarize",
            environment=environment,
            kind="completion",
            inputs=("text", "sentences"),
            parameters={"prompt": summarize},
            description="Summarizes a text.",
        ),
    ]
