"""Questions over HTTP to those who know who calls."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import httpx
import yarl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BODY_BYTES = 1024 * 1024


class Unanswered(Exception):
    """No answer came, or none that can be read. The text says why, and quotes nothing that was sent or received."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its whole body, at most 1 MiB."""

    status: int
    body: bytes


class HttpClient:
    """Asks, and takes no answer but the one that comes from there: redirects aren't followed, cookies not kept.

    A question whose connection broke without an answer may be asked once more.

    Each question has a connection of its own. One that was used before could hold bytes that nobody has asked for, and
    they would be read as the answer to another caller's question.

    It belongs to the event loop of its first question.

    Args:
        timeout: Seconds that a question may take in all.
        ca_file: Certificates of the authorities to trust, as PEM, in place of the public ones.
        proxy: URL of an HTTP proxy, maybe with credentials. The environment is never asked for one.

    Raises:
        ValueError: The proxy is no URL of an HTTP proxy.
        OSError: The file of certificates can't be read, or holds none.
    """

    def __init__(self, *, timeout: float, ca_file: Path | None = None, proxy: str | None = None) -> None:
        self._timeout = timeout
        self._proxy = None if proxy is None else _proxy_url(proxy)
        # The same public authorities as for the completion service, which is asked by httpx.
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context(trust_env=False)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: yarl.URL, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask, and return the answer, whatever its status.

        Raises:
            Unanswered: The connection or the answer failed, it took too long, or the body is too large.
        """
        if self._session is None:
            self._session = self._open_session()
        if self._session.closed:
            raise Unanswered("the client is closed")
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                return Answer(response.status, await _read(response))
        except TimeoutError:
            raise Unanswered("it took too long") from None
        # Those of aiohttp hold the request, credentials and all; the last two are of names that can't be one.
        except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
            raise Unanswered(_kind(error)) from None

    async def aclose(self) -> None:
        """Break off the questions that are open, and ask no more."""
        self._session = self._session or self._open_session()
        await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._proxy,
            # Compressed, a small answer could unfold to a huge one.
            auto_decompress=False,
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "agenta-ai-server"},
        )


def _kind(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        # What is wrong with it, in OpenSSL's words: it has expired, is for another name, or by an unknown authority.
        return f"{type(error).__name__}: {getattr(error.certificate_error, 'verify_message', '')}".rstrip(".: ")
    return type(error).__name__


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Unanswered("the answer has more than 1 MiB")
    return bytes(body)


def http_url(url: str) -> yarl.URL:
    """Return the URL, if it is one that a question can be sent to.

    Raises:
        ValueError: It isn't, or it holds credentials or a fragment. The sentence doesn't repeat it.
    """
    parsed = _http_url(url)
    if parsed.user is not None or parsed.password is not None or parsed.raw_fragment:
        raise ValueError("must have no credentials and no fragment")
    return parsed


def _http_url(url: str) -> yarl.URL:
    try:
        parsed = yarl.URL(url)
        host, port = parsed.host, parsed.explicit_port
    except ValueError:
        raise ValueError("is no URL") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise ValueError("must have the scheme http or https, and a host")
    if len(url.split()) != 1 or port == 0:
        raise ValueError("must have no blanks, and a port from 1 to 65535 if any")
    return parsed


def _proxy_url(proxy: str) -> yarl.URL:
    try:
        return _http_url(proxy)
    except ValueError as error:
        raise ValueError(f"The proxy {error}. Give one such as http://proxy.example:3128.") from None
