"""The pages of a running API server, as somebody with a role gets them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import requests

from tests.plugins.company import Company
from tests.support.fab import FabAirflow


@dataclass
class Shown:
    """An API server and the company that it shows."""

    airflow: FabAirflow
    company: Company

    @property
    def url(self) -> str:
        """Of the pages, without a slash at its end."""
        return f"{self.airflow.url}/compliance"

    @cached_property
    def routes(self) -> list[tuple[str, list[str]]]:
        """Every route that the app has, with its methods; what is none, as a folder, fails here."""
        from plugins.compliance_ui.app import compliance_pages  # imports much of Airflow

        found: list[Any] = compliance_pages().routes
        return [(one.path, sorted(one.methods)) for one in found]

    def get(
        self, role: str | None, path: str, language: str = "en", **headers: str
    ) -> requests.Response:
        """Ask for a page as the user of a role; None is a stranger."""
        return self.airflow.session(role).get(
            self.url + path,
            headers={"Accept-Language": language, **headers},
            timeout=120,
            allow_redirects=False,
        )
