"""Templates in the likeness of real ones, mutated, with Agenta's renderers as the oracle, in situations of its own.

``make test`` takes a few of them; ``make test-slow`` all of them, with at most one miss or false alarm in a thousand.
"""

from __future__ import annotations

import json

import pytest
from conftest import SLOW
from guarantee.corpus.mutations import BREAKING, LEGITIMATE, mutants
from guarantee.corpus.oracle import Oracle
from guarantee.corpus.templates import Sample, samples

from agenta_ai_server.tools.refine_prompt import guarantee, template
from agenta_ai_server.tools.refine_prompt.formats import READ
from agenta_ai_server.tools.refine_prompt.rendering import comparison

SAMPLES = samples()
FEW = not SLOW


def passes(sample: Sample, new: str) -> bool:
    """Whether the check takes a text for the sample's."""
    if sample.template_format not in READ:
        return not comparison.compare(sample.template_format, [sample.text], [], [new])
    messages = [{"role": "user", "content": sample.text}]
    prompt = template.parse(json.dumps({"messages": messages, "template_format": sample.template_format}))
    return not [*guarantee.control_violations(prompt, [new]), *guarantee.variable_violations(prompt, [new])]


def test_there_are_enough() -> None:
    assert len(SAMPLES) >= 300
    assert all(len(kinds) >= 25 for kinds in BREAKING.values())
    assert all(len(kinds) >= 15 for kinds in LEGITIMATE.values())


@pytest.mark.parametrize("sample", SAMPLES[::23] if FEW else SAMPLES, ids=lambda sample: sample.name)
@pytest.mark.timeout(600)
def test_what_the_renderers_say(sample: Sample) -> None:
    """No template has a miss or a false alarm; the closing note of the issue has the figures."""
    name, text = sample.template_format, sample.text
    assert passes(sample, text)
    oracle = Oracle(name, text, sample.schema, sample.name)
    every = 4 if FEW else 1
    broken = [new for _, new in list(mutants(BREAKING[name], text))[::every] if oracle.is_broken(new)]
    assert FEW or len(broken) >= 25
    assert not [new for new in broken if passes(sample, new)]
    kept = [new for _, new in list(mutants(LEGITIMATE[name], text))[::every] if not oracle.is_broken(new)]
    assert FEW or len(kept) >= 15
    assert not [new for new in kept if not passes(sample, new)]
