"""What runs of test cases may cost this service, where it pays for them: which models, and how many tokens."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.tools import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agenta_ai_server.domain.values import Json

TEMPLATE = "arguments.prompt_template_json"
#: What an answer may have if the template doesn't say.
DEFAULT_ANSWER_TOKENS = 1_000
#: Models take about one token for four letters of English, and for one or two characters of other scripts.
BYTES_PER_TOKEN = 3
#: What can't cost more than the tokens that are counted. Everything else may name another model, or more answers.
KEYS = ("messages", "template_format", "input_keys", "llm_config")
CONFIG_KEYS = (
    "model", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "response_format",
)  # fmt: skip
#: In others, a loop can make any number of tokens of a short text. Of each: what opens a placeholder, and a whole one.
FORMATS = {"curly": ("{{", re.compile(r"\{\{([^{}]*)\}\}")), "fstring": ("{", re.compile(r"\{([^{}]*)\}"))}
# What names a value, and doesn't format it or walk through it.
_NAME_ALONE = re.compile(r"[^.\[]*")


@dataclass(frozen=True, slots=True)
class Spending:
    """What runs may cost.

    Attributes:
        models: Names of the models that may be run; none if the operator pays for none.
        max_tokens: What all runs of one call may take, prompts and answers together.
    """

    models: tuple[str, ...] = ()
    max_tokens: int = 200_000

    def prepared(self, root: Mapping[str, Any]) -> dict[str, Any]:
        """Return a template as it is run at this service's expense: with a model, and a limit on its answers."""
        config = dict(root.get("llm_config") or {})
        config["model"] = config.get("model") or self.models[0]
        config["max_tokens"] = config.get("max_tokens") or DEFAULT_ANSWER_TOKENS
        return {**root, "llm_config": config}

    def violations(self, root: Mapping[str, Any]) -> list[Violation]:
        """Return why a template isn't run at this service's expense, whatever it may take; nothing if it is."""
        return [Violation(TEMPLATE, sentence) for sentence in self._faults(root)]

    def excess(self, root: Mapping[str, Any], inputs: Sequence[Mapping[str, Json]], runs: int, passes: int) -> str:
        """Say that a template may take too many tokens, or isn't run at all; nothing if it may be run.

        Args:
            root: The template, which may be a refinement of one without :meth:`violations`.
            inputs: Of each case.
            runs: Of each case, in one pass.
            passes: How often all cases are run at most.
        """
        if fault := next(self._faults(root), ""):
            return fault
        answer = self.prepared(root)["llm_config"]["max_tokens"]
        tokens = passes * runs * sum(_prompt_tokens(root, each) + answer for each in inputs)
        if tokens <= self.max_tokens:
            return ""
        return (
            f"The runs may take up to {tokens:,} tokens, and this service pays for {self.max_tokens:,}. Use fewer or "
            f"smaller cases, fewer rounds or runs, or a smaller llm_config.max_tokens in the template; it is {answer:,}"
        )

    def _faults(self, root: Mapping[str, Any]) -> Iterator[str]:
        if not self.models:
            yield "This service runs no test cases at its own expense. Call with a credential of Agenta's."
            return
        config = root.get("llm_config") or {}
        if not isinstance(config, dict):
            yield "Its llm_config must be an object."
            return
        model = config.get("model") or self.models[0]
        if model not in self.models:
            named = f"the model {model[:100]}" if isinstance(model, str) else "a model that is no name"
            yield f"It names {named}, and this service runs cases only with {', '.join(self.models)}."
        for key, path in (
            *((key, key) for key in root if key not in KEYS),
            *((key, f"llm_config.{key}") for key in config if key not in CONFIG_KEYS),
        ):
            if (root if path == key else config)[key] is not None:
                yield f"It has {path[:100]}, with which this service runs no cases. Leave it out."
        most = config.get("max_tokens")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            yield "Its llm_config.max_tokens must be an integer of at least 1."
        yield from _faults_of_texts(root)


def _faults_of_texts(root: Mapping[str, Any]) -> Iterator[str]:
    if (root.get("template_format") or "curly") not in FORMATS:
        yield f"Its format must be one of {', '.join(FORMATS)}, because loops have no limit."
    if any(not isinstance(message.get("content") or "", str) for message in root["messages"]):
        yield "Its messages must be texts only, because the tokens of pictures and files aren't known."
    if root.get("template_format") == "fstring" and not all(map(_has_names_alone, _strings(root))):
        yield (
            "Its placeholders must be names alone, {name}, because a format such as {name:>9999} can make any number "
            "of tokens."
        )


def _prompt_tokens(root: Mapping[str, Any], inputs: Mapping[str, Json]) -> int:
    """Return about how many tokens the model reads, rather too many: each tag counts what it is replaced by."""
    sizes = {name: _size(value) for name, value in inputs.items()}
    # A path such as {{$.items}} may stand for all of them, and so may whatever isn't exactly a name.
    everything = sum(sizes.values())
    opening, placeholder = FORMATS[root.get("template_format") or "curly"]
    source = "\n".join(_strings(root))
    names = [name.strip() for name in placeholder.findall(source)]
    others = max(source.count(opening) - len(names), 0)
    # Numbers and syntax are read by a model, too, for example those of a response_format.
    size = len(strict_json.dump(dict(root)).encode(errors="replace"))
    size += sum(sizes.get(name, everything) for name in names) + others * everything
    return -(-size // BYTES_PER_TOKEN)


def _has_names_alone(text: str) -> bool:
    """Whether the placeholders of an fstring name values, and neither format them nor walk through them."""
    try:
        return all(
            name is None or (not spec and not conversion and _NAME_ALONE.fullmatch(name))
            for _, name, spec, conversion in Formatter().parse(text)
        )
    except ValueError:
        return False


def _strings(value: Json | Mapping[str, Any]) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from _strings(item)
        case list():
            for item in value:
                yield from _strings(item)


def _size(value: Json) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode(errors="replace"))
