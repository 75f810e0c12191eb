"""The policy of rate limits: which limit applies to a caller, and which calls share a bucket."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from agenta_ai_server.domain.digest import digest
from agenta_ai_server.limits.limiter import MAX_BURST, MAX_PER_MINUTE, Limit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from agenta_ai_server.domain.call import Principal

# Quotas that a policy remembers.
MAX_QUOTAS = 10_000
Name = Annotated[str, StringConstraints(min_length=1)]


class _Rule(BaseModel):
    """A limit, an exemption, or neither, in which case the next rule decides."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    burst: Annotated[int | None, Field(ge=1, le=MAX_BURST)] = None
    # A whole number, as in the contract.
    per_minute: Annotated[int | None, Field(ge=1, le=MAX_PER_MINUTE)] = None
    unlimited: bool = False

    @model_validator(mode="after")
    def _check_consistency(self) -> _Rule:
        if (self.burst is None) is not (self.per_minute is None):
            raise ValueError("burst and per_minute must be given together")
        if self.unlimited and self.burst is not None:
            raise ValueError("unlimited can't be combined with burst and per_minute")
        return self

    @property
    def decides(self) -> bool:
        return self.unlimited or self.burst is not None

    @cached_property
    def limit(self) -> Limit | None:
        if self.burst is None or self.per_minute is None:
            return None
        return Limit(self.burst, self.per_minute)


BUILT_IN = _Rule(burst=10, per_minute=30)


class _Rules(_Rule):
    """A rule, and others for some tools."""

    tools: dict[Name, _Rule] = {}


class _File(_Rules):
    plans: dict[Name, _Rules] = {}
    organizations: dict[Name, _Rules] = {}


@dataclass(frozen=True, slots=True)
class Quota:
    """The limit that one caller has for one tool. Nothing in it is personal data.

    Attributes:
        id: The part of the policy that sets it: ``default``, ``tool``, ``plan``, ``plan-tool``, ``organization`` or
            ``organization-tool``.
        key: Names the bucket: 32 hexadecimal digits, a hash of the tool's name, the organization and the user.
        limit: The limit.
    """

    id: str
    key: str
    limit: Limit

    @property
    def subject(self) -> str:
        """Whom it limits, in the words of ``google.rpc.QuotaFailure``: ``bucket:`` and the key, as in the store."""
        return f"bucket:{self.key}"


class LimitPolicy:
    """Decides which limit applies. The most specific rule wins.

    The order is: the organization's for the tool, the organization's, the plan's for the tool, the plan's, the tool's,
    the general one, and without any of these, 10 calls at once and 30 a minute.
    """

    def __init__(self) -> None:
        self._file = _File()
        self._quota = lru_cache(maxsize=MAX_QUOTAS)(self._find_quota)

    @classmethod
    def parse(cls, content: bytes, tools: Collection[str] = ()) -> LimitPolicy:
        """Read a policy from TOML; docs/limits.md describes its format.

        Args:
            content: UTF-8.
            tools: Names of all tools, to find wrong ones; if empty, names aren't checked.

        Raises:
            ValueError: It can't be read, or has invalid keys or values. The message names each place.
        """
        policy = cls()
        try:
            policy._file = _File.model_validate(tomllib.loads(content.decode()))
        except UnicodeDecodeError as error:
            raise ValueError(f"isn't UTF-8 (at byte {error.start})") from None
        except RecursionError:
            raise ValueError("is nested too deeply") from None
        except ValidationError as error:
            raise ValueError("; ".join(_faults(error))) from None
        unknown = sorted(policy._tools() - set(tools)) if tools else []
        if unknown:
            raise ValueError(f"there is no tool {unknown[0]!r}; there are {', '.join(sorted(tools))}")
        return policy

    def quota(self, tool: str, principal: Principal) -> Quota | None:
        """Return the limit of this caller for this tool; ``None`` if there is none."""
        return self._quota(tool, principal.organization, principal.plan, principal.user)

    def _find_quota(self, tool: str, organization: str, plan: str, user: str) -> Quota | None:
        name, rule = next(found for found in self._rules(tool, organization, plan) if found[1].decides)
        return Quota(name, digest(tool, organization, user).hex(), rule.limit) if rule.limit else None

    def _rules(self, tool: str, organization: str, plan: str) -> Iterator[tuple[str, _Rule]]:
        scopes = [
            ("organization", self._file.organizations.get(organization)),
            ("plan", self._file.plans.get(plan)),
        ]
        for name, rules in scopes:
            if rules:
                if tool in rules.tools:
                    yield f"{name}-tool", rules.tools[tool]
                yield name, rules
        if tool in self._file.tools:
            yield "tool", self._file.tools[tool]
        yield "default", self._file
        yield "default", BUILT_IN

    def _tools(self) -> set[str]:
        scopes = [self._file, *self._file.plans.values(), *self._file.organizations.values()]
        return {tool for scope in scopes for tool in scope.tools}


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in fault["loc"] if part != "[key]") or "at the top"
        message = "there is no such key" if fault["type"] == "extra_forbidden" else fault["msg"]
        yield f"{place}: {message.removeprefix('Value error, ')}"
