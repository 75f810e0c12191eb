"""The protobuf names of tools, groups of tools and properties."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

ROOT = "agenta.ai.tools"
# What buf's STANDARD calls lower_snake_case, and every language can write.
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class InvalidName(ValueError):
    """A name that protobuf, or buf's STANDARD, doesn't allow. ``str()`` is a sentence."""


@dataclass(frozen=True, slots=True)
class MethodName:
    """Where a tool's typed method is.

    Attributes:
        package: ``"agenta.ai.tools.acme.support.v1"``.
        service: ``"SupportToolsService"``.
        method: ``"ClassifyTicket"``.
    """

    package: str
    service: str
    method: str

    @property
    def full_service(self) -> str:
        """Name of the service, as in reflection and health."""
        return f"{self.package}.{self.service}"

    @property
    def path(self) -> str:
        """The method as gRPC sends it: ``"/agenta.ai.tools.acme.support.v1.SupportToolsService/ClassifyTicket"``."""
        return f"/{self.full_service}/{self.method}"

    @property
    def file(self) -> str:
        """Path of the file that defines it, below the root of imports."""
        return f"{self.package.replace('.', '/')}/{snake_case(self.service)}.proto"


# Descriptors of a tool need it ten times.
@lru_cache(maxsize=1024)
def method_name(tool: str) -> MethodName:
    """Return the names of a tool's typed method.

    Args:
        tool: ``"tools.<provider>.<group>.<tool>"``.

    Raises:
        InvalidName: A segment is no name in protobuf: it begins with a digit, or has an underscore too many.
    """
    _, provider, group, name = tool.split(".")
    for segment in (provider, group, name):
        if not SNAKE_CASE.fullmatch(segment):
            raise InvalidName(f"The segment {segment!r} of the tool's name is not lower_snake_case.")
    return MethodName(f"{ROOT}.{provider}.{group}.v1", f"{pascal_case(group)}ToolsService", pascal_case(name))


def field_name(name: str) -> str:
    """Return the name of a property's field: ``"dueDate"`` and ``"due-date"`` give ``"due_date"``.

    Raises:
        InvalidName: It gives none.
    """
    field = snake_case(name)
    if not SNAKE_CASE.fullmatch(field):
        raise InvalidName("The name is neither snake_case nor camelCase nor kebab-case, so it has no field.")
    return field


def snake_case(name: str) -> str:
    """``"SupportToolsService"`` gives ``"support_tools_service"``."""
    return _HUMP.sub("_", name).replace("-", "_").lower()


def pascal_case(name: str) -> str:
    """``"classify_ticket"`` gives ``"ClassifyTicket"``."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def json_name(field: str) -> str:
    """Return the JSON name that protoc gives a field by itself: ``"due_date"`` gives ``"dueDate"``."""
    first, *others = field.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)
