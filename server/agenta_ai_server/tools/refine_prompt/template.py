"""Prompt templates: finds the texts that can be refined, and puts refined texts back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenta_ai_server.domain.record import record
from agenta_ai_server.tools import strict_json
from agenta_ai_server.tools.refine_prompt.formats import DEFAULT, FORMATS, READ
from agenta_ai_server.tools.refine_prompt.formats.jsonpath import Paths
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agenta_ai_server.domain.values import Json

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# Messages of the other roles are tool results: data, not instructions. The upstream's schema has only these four.
REFINABLE_ROLES = ROLES[:4]
# Types of the parts of a content, as Agenta knows them.
PARTS = ("text", "image_url", "input_audio", "file", "refusal")
# The result repeats the messages as protobuf values, which can't be read when nested beyond 32 levels.
MAX_CONTENT_DEPTH = 16


class TemplateError(ValueError):
    """The template can't be refined. The message is a sentence for people that names the place."""


@record
class Text:
    """One text of the template.

    Attributes:
        role: Of its message.
        content: The text itself.
        message: Index of its message.
        part: Index of its part, if the message's content is a list of parts.
    """

    role: str
    content: str
    message: int
    part: int | None = None

    @property
    def is_refinable(self) -> bool:
        """Whether it is more than white space, and no data."""
        return self.role in REFINABLE_ROLES and bool(self.content.strip())

    @property
    def path(self) -> str:
        """Where it stands, for people: ``messages[2].content``."""
        if self.part is None:
            return f"messages[{self.message}].content"
        return f"messages[{self.message}].content[{self.part}].text"


@record
class Template:
    """A prompt template.

    Attributes:
        source: The JSON as the caller sent it.
        root: What it holds.
        texts: What can be refined, in the order in which it stands; at least one.
        template_format: Name of the format, one of ``FORMATS``.
        fixed: The other texts, those that stay as they are.
        variables: What ``texts`` ask for, in a format that is read; ``None`` in one that is rendered.
    """

    source: str
    root: dict[str, Any]
    texts: tuple[Text, ...]
    template_format: str
    fixed: tuple[Text, ...]
    variables: frozenset[str] | None

    @property
    def size(self) -> int:
        """The characters of its texts."""
        return sum(len(text.content) for text in self.texts)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages as they came."""
        messages: list[dict[str, Any]] = self.root["messages"]
        return messages

    def for_upstream(self) -> str:
        """Return the template as JSON with one message for each text: all that the upstream can read.

        A template that is nothing else goes as it came.
        """
        sent: list[Json] = [{"role": text.role, "content": text.content} for text in self.texts]
        return self.source if sent == self.messages else strict_json.dump({**self.root, "messages": sent})

    def with_texts(self, contents: Sequence[str]) -> dict[str, Any]:
        """Return the whole template with ``contents`` in the places of ``texts``, and all else as it was."""
        messages = [dict(message) for message in self.messages]
        for text, content in zip(self.texts, contents, strict=True):
            message = messages[text.message]
            if text.part is None:
                message["content"] = content
            else:
                parts = message["content"] = list(message["content"])
                parts[text.part] = {**parts[text.part], "text": content}
        return {**self.root, "messages": messages}


def parse(source: str) -> Template:
    """Read a template.

    Args:
        source: A JSON object with a non-empty list ``messages``; each message has a role of ``ROLES`` and a content
            that is a string, null, absent, or a list of parts.

    Raises:
        TemplateError: It isn't one, has too many values, holds no text that could be refined, or one that can't be read
            in its format.
    """
    try:
        root = strict_json.parse(source)
    except ValueError as error:
        raise TemplateError(f"The template {error}.") from None
    if not isinstance(root, dict):
        raise TemplateError("The template must be a JSON object with a list 'messages'.")
    messages = root.get("messages")
    if not isinstance(messages, list) or not messages:
        raise TemplateError("The template's 'messages' must be a list with at least one message.")
    template_format = _format(root)
    texts: list[Text] = []
    fixed: list[Text] = []
    for index, message in enumerate(messages):
        for text in _texts(message, index):
            (texts if text.is_refinable else fixed).append(text)
    if not texts:
        raise TemplateError(
            f"No message has text to refine: it needs one of the roles {', '.join(REFINABLE_ROLES)} and a content "
            "other than white space."
        )
    _check_response_format(root, template_format)
    variables = _variables(texts, template_format)
    return Template(source, root, tuple(texts), template_format, tuple(fixed), variables)


def _format(root: dict[str, Any]) -> str:
    name = root.get("template_format")
    if name is None:
        return DEFAULT
    if not isinstance(name, str) or name not in FORMATS:
        raise TemplateError(f"The template's 'template_format' must be one of {', '.join(FORMATS)}, or absent.")
    return name


def cannot_render(text: Text, template_format: str, description: str) -> str:
    """Say why a text can't be rendered, in a sentence for people."""
    return f"{text.path} can't be rendered in the format {template_format}: {description.rstrip('.')}."


def _variables(texts: Sequence[Text], template_format: str) -> frozenset[str] | None:
    if (read := READ.get(template_format)) is None:
        return None
    found: set[str] = set()
    paths = Paths()
    for text in texts:
        try:
            found |= read(text.content, paths)
        except TemplateSyntaxError as error:
            raise TemplateError(cannot_render(text, template_format, str(error))) from None
    return frozenset(found)


def _check_response_format(root: dict[str, Any], template_format: str) -> None:
    """Refuse what Agenta fails on: it formats each string of a response format as it does the texts."""
    if template_format != "fstring":
        return
    fallbacks = root.get("fallback_configs")
    configs = {"llm_config": root.get("llm_config")}
    configs |= {
        f"fallback_configs[{index}]": each
        for index, each in enumerate(fallbacks if isinstance(fallbacks, list) else ())
    }
    for path, config in configs.items():
        for text in strings_in(config.get("response_format")) if isinstance(config, dict) else ():
            try:
                READ[template_format](text)
            except TemplateSyntaxError as error:
                message = f"{path}.response_format can't be rendered in the format {template_format}: {error}"
                raise TemplateError(message) from None


def strings_in(value: Json | Mapping[str, Any]) -> Iterator[str]:
    """Yield all strings of a JSON value, keys included."""
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from strings_in(item)
        case list():
            for item in value:
                yield from strings_in(item)


def _texts(message: object, index: int) -> list[Text]:
    if not isinstance(message, dict):
        raise TemplateError(f"messages[{index}] must be an object with 'role' and 'content'.")
    role = message.get("role")
    if role not in ROLES:
        raise TemplateError(f"messages[{index}].role must be one of {', '.join(ROLES)}.")
    content = message.get("content")
    if isinstance(content, str):
        return [Text(role, content, index)]
    if isinstance(content, list):
        return _part_texts(content, role, index)
    if content is None:
        return []
    raise TemplateError(f"messages[{index}].content must be a string, null or a list of parts.")


def _part_texts(parts: list[Any], role: str, index: int) -> list[Text]:
    if strict_json.depth(parts) > MAX_CONTENT_DEPTH:
        raise TemplateError(f"messages[{index}].content is nested more than {MAX_CONTENT_DEPTH} levels deep.")
    found = []
    for number, part in enumerate(parts):
        if not isinstance(part, dict):
            raise TemplateError(f"messages[{index}].content[{number}] must be an object.")
        if part.get("type") not in PARTS:
            raise TemplateError(f"messages[{index}].content[{number}].type must be one of {', '.join(PARTS)}.")
        if part["type"] != "text":
            continue
        if not isinstance(part.get("text"), str):
            raise TemplateError(f"messages[{index}].content[{number}].text must be a string.")
        found.append(Text(role, part["text"], index, number))
    return found
