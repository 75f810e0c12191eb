"""A client's credentials: a key or a token, and the project to act in."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenta_ai.errors import InvalidInput

if TYPE_CHECKING:
    from agenta_ai.meta import Metadata

AUTHORIZATION = "authorization"
PROJECT = "x-agenta-project-id"

# Most characters of a key, a token or a project, as the server takes them.
MAX_CHARACTERS = 8192

TokenProvider = Callable[[], str | Awaitable[str]]

_VISIBLE = re.compile(rf"[!-~]{{1,{MAX_CHARACTERS}}}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials and metadata of every call. ``repr()`` shows no secret.

    Attributes:
        given: Name of the argument with the credential, for example ``"api_key"``; empty if there is none.
        metadata: What is sent with every call, except for the token of the provider.
        provider: Makes the token of each call; ``None`` if there is none.
    """

    given: str
    metadata: Metadata = field(repr=False)
    provider: TokenProvider | None = field(repr=False)

    def with_token(self, token: object) -> Metadata:
        """Return the metadata of a call for which the provider made this token.

        Raises:
            InvalidInput: It can't be a token. It isn't shown.
        """
        return (*self.metadata, (AUTHORIZATION, f"Bearer {_visible(token, 'the token of token_provider')}"))


def credentials(
    *,
    api_key: str | None,
    token: str | None,
    token_provider: TokenProvider | None,
    project: str | None,
    metadata: Metadata,
) -> Credentials:
    """Check the credentials of a client: see :class:`agenta_ai.Client`.

    Args:
        api_key: A key of the server, or of Agenta.
        token: A bearer token.
        token_provider: Makes one for each call.
        project: Id of the project to act in.
        metadata: The user's own pairs, their keys in lower case.

    Raises:
        InvalidInput: One can't be sent, or is given twice. Its value isn't shown.
    """
    keys = {key for key, _ in metadata}
    arguments = {"api_key": api_key, "token": token, "token_provider": token_provider}
    given = [name for name, value in arguments.items() if value is not None]
    if AUTHORIZATION in keys:
        given.append(f"{AUTHORIZATION} in metadata")
    if len(given) > 1:
        raise InvalidInput(f"{' and '.join(given)}: give only one of them.")
    if project is not None and PROJECT in keys:
        raise InvalidInput(f"project and {PROJECT} in metadata: give only one of them.")
    if token_provider is not None and not callable(token_provider):
        raise InvalidInput("token_provider: must be a function that returns a token. Pass a token itself as token.")
    return Credentials("".join(given), (*metadata, *_fixed(api_key, token, project)), token_provider)


def note_failure(error: Exception) -> None:
    """Add to an error of a token provider that the call wasn't sent."""
    note = "agenta_ai: token_provider failed. Nothing was sent."
    # A provider may raise the same object again.
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def _fixed(api_key: str | None, token: str | None, project: str | None) -> Iterator[tuple[str, str]]:
    if api_key is not None:
        yield AUTHORIZATION, f"ApiKey {_visible(api_key, 'api_key')}"
    if token is not None:
        yield AUTHORIZATION, f"Bearer {_visible(token, 'token')}"
    if project is not None:
        yield PROJECT, _visible(project, "project")


def _visible(value: object, name: str) -> str:
    if isinstance(value, str) and _VISIBLE.fullmatch(value):
        return value
    raise InvalidInput(
        f"{name}: must be 1 to {MAX_CHARACTERS} visible ASCII characters, without spaces or a trailing newline. "
        "Nothing was sent."
    )
