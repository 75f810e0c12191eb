"""Limits on test cases that this service pays for: which models, and how many tokens."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.tools import strict_json
from agenta_ai_server.tools.refine_prompt.formats import curly
from agenta_ai_server.tools.refine_prompt.template import strings_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from agenta_ai_server.domain.values import Json

TEMPLATE = "arguments.prompt_template_json"
# What an answer may have if the template doesn't say.
DEFAULT_ANSWER_TOKENS = 1_000
# What can't cost more than the tokens that are counted. Everything else may name another model, or more answers.
KEYS = ("messages", "template_format", "input_keys", "llm_config")
CONFIG_KEYS = (
    "model", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "response_format",
)  # fmt: skip
# In others, a loop can make any number of tokens of a short text. Of each: what opens a placeholder, and what finds the
# names in them.
FORMATS: dict[str, tuple[str, Callable[[str], Iterable[str]]]] = {
    "curly": ("{{", curly.placeholders),
    "fstring": ("{", re.compile(r"\{([^{}]*)\}").findall),
}
# What names a value, and doesn't format it or walk through it.
_NAME_ALONE = re.compile(r"[^.\[]*")
# What opens a JSONPath in a curly template, and a whole one that selects a single value. In others, such as {{$|$|$}}
# and {{$..*}}, a few characters can select all values any number of times.
_JSONPATH = re.compile(r"\{\{\s*\$")
_SINGULAR_JSONPATH = re.compile(r"\{\{\s*\$(?:\.\w+|\[-?\d+\]|\['[^'\\{}]*'\])*\s*\}\}")


@dataclass(frozen=True, slots=True)
class Spending:
    """Limits on the cost of runs.

    Attributes:
        models: Names of the models that may be run; none if the operator pays for none.
        max_tokens: Maximum tokens of all runs of one call, prompts and answers together.
    """

    models: tuple[str, ...] = ()
    max_tokens: int = 200_000

    def prepared(self, root: Mapping[str, Any]) -> dict[str, Any]:
        """Return a template with a model and a limit on its answers that this service pays for."""
        config = dict(root.get("llm_config") or {})
        config["model"] = config.get("model") or self.models[0]
        config["max_tokens"] = config.get("max_tokens") or DEFAULT_ANSWER_TOKENS
        return {**root, "llm_config": config}

    def violations(self, root: Mapping[str, Any]) -> list[Violation]:
        """Return why this service doesn't pay for a template, regardless of its size; empty if it does."""
        return [Violation(TEMPLATE, sentence) for sentence in self._faults(root)]

    def excess(self, root: Mapping[str, Any], inputs: Sequence[Mapping[str, Json]], runs: int, passes: int) -> str:
        """Return why a template may not be run: too many tokens, or a violation. Empty if it may.

        Args:
            root: The template, which may be a refinement of one without :meth:`violations`.
            inputs: Of each case.
            runs: Of each case, in one pass.
            passes: How often all cases are run at most.
        """
        if fault := next(self._faults(root), ""):
            return fault
        answer = self.prepared(root)["llm_config"]["max_tokens"]
        size = _PromptSize(root)
        tokens = passes * runs * sum(size.tokens(each) + answer for each in inputs)
        if tokens <= self.max_tokens:
            return ""
        return (
            f"The runs may take up to {tokens:,} tokens, but this service pays for {self.max_tokens:,}. Use fewer or "
            f"smaller cases, fewer rounds or runs, or a smaller llm_config.max_tokens in the template; it is {answer:,}"
        )

    def _faults(self, root: Mapping[str, Any]) -> Iterator[str]:
        if not self.models:
            yield "This service doesn't pay for test cases. Call it with an Agenta credential."
            return
        config = root.get("llm_config") or {}
        if not isinstance(config, dict):
            yield "Its llm_config must be an object."
            return
        model = config.get("model") or self.models[0]
        if model not in self.models:
            named = f"the model {model[:100]}" if isinstance(model, str) else "a model that isn't a string"
            yield f"It names {named}, but this service runs test cases only with {', '.join(self.models)}."
        for key, path in (
            *((key, key) for key in root if key not in KEYS),
            *((key, f"llm_config.{key}") for key in config if key not in CONFIG_KEYS),
        ):
            if (root if path == key else config)[key] is not None:
                yield f"It has {path[:100]}, which this service doesn't accept with test cases. Remove it."
        most = config.get("max_tokens")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            yield "Its llm_config.max_tokens must be an integer of at least 1."
        yield from _faults_of_texts(root)


def _faults_of_texts(root: Mapping[str, Any]) -> Iterator[str]:
    if (root.get("template_format") or "curly") not in FORMATS:
        yield f"Its format must be {' or '.join(FORMATS)}, because other formats have loops without a limit."
    if any(not isinstance(message.get("content") or "", str) for message in root["messages"]):
        yield "Its messages must contain only text, because the tokens of images and files aren't known."
    if root.get("template_format") == "fstring" and not all(map(_has_names_alone, strings_in(root))):
        yield (
            "Its placeholders must contain only a name, {name}, because a format such as {name:>9999} can produce any "
            "number of tokens."
        )
    if root.get("template_format") != "fstring" and not all(map(_has_singular_jsonpaths, strings_in(root))):
        yield (
            "Its JSONPaths must select a single value, such as {{$.items[0].name}}, because others, such as {{$..*}}, "
            "can produce any number of tokens."
        )


class _PromptSize:
    """The most tokens that a model can read of a template: each placeholder counts as the value that it names.

    A token has at least one byte, because no tokenizer splits a byte. English prose, code and JSON have about four to a
    token, but separate digits, alternating case and rare characters have only one.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        template_format = root.get("template_format") or "curly"
        self._has_paths = template_format == "curly"
        opening, names_in = FORMATS[template_format]
        texts = list(strings_in(root))
        self._names = Counter(name.strip() for text in texts for name in names_in(text))
        self._placeholders = self._names.total()
        self._unclosed = max(sum(text.count(opening) for text in texts) - self._placeholders, 0)
        # A model also reads numbers and syntax, for example those of a response_format.
        self._bytes = len(strict_json.dump(dict(root)).encode(errors="replace"))

    def tokens(self, inputs: Mapping[str, Json]) -> int:
        """Return how many tokens a model reads at most with these inputs."""
        sizes = {name: _size(value) for name, value in inputs.items()}
        # A path such as {{$}} stands for all of them, with their names, and so may anything that isn't exactly a name.
        everything = _size(inputs)
        # Agenta reads these as paths, even if an input has such a name.
        named = {name for name in sizes if not (self._has_paths and name.startswith(("$", "/")))}
        less = sum(self._names[name] * (everything - sizes[name]) for name in named)
        return self._bytes + (self._unclosed + self._placeholders) * everything - less


def _has_names_alone(text: str) -> bool:
    """Whether the placeholders of an fstring name values, and neither format them nor walk through them."""
    try:
        return all(
            name is None or (not spec and not conversion and _NAME_ALONE.fullmatch(name))
            for _, name, spec, conversion in Formatter().parse(text)
        )
    except ValueError:
        return False


def _has_singular_jsonpaths(text: str) -> bool:
    """Whether each JSONPath of a curly template selects a single value."""
    return len(_JSONPATH.findall(text)) == len(_SINGULAR_JSONPATH.findall(text))


def _size(value: Json | Mapping[str, Json]) -> int:
    """Return the bytes of a value in a prompt: Agenta writes JSON there, or what Python shows of the value."""
    texts = [value] if isinstance(value, str) else [json.dumps(value, ensure_ascii=False), str(value)]
    return max(len(text.encode(errors="replace")) for text in texts)
