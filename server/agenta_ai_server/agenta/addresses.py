"""The URLs of Agenta's routes."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from agenta_ai_server.domain.agenta_url import check_agenta_url, root_path


@dataclass(frozen=True, slots=True)
class AgentaAddress:
    """An installation of Agenta.

    Attributes:
        root: URL that all of its routes begin with, without a slash at its end: ``"https://cloud.agenta.ai"``.
    """

    root: str

    @classmethod
    def parse(cls, api_url: str) -> AgentaAddress:
        """Read an address in any of the spellings that people use.

        Args:
            api_url: An http or https URL, with or without ``/api``, ``/services`` or a slash at its end.

        Raises:
            ValueError: It isn't such a URL, or has credentials, a query or a fragment. The sentence doesn't repeat it.
        """
        url = api_url.strip()
        check_agenta_url(url)
        parts = urlsplit(url)
        return cls(f"{parts.scheme}://{parts.netloc.lower()}{root_path(parts.path)}")

    def services(self, path: str) -> str:
        """Return the URL of a route that runs prompts: ``"completion/run"``."""
        return f"{self.root}/services/{path}"

    def api(self, path: str) -> str:
        """Return the URL of a route of the management API: ``"applications/revisions/retrieve"``."""
        return f"{self.root}/api/{path}"
