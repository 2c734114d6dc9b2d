"""An API server that serves the compliance pages, and HTTP requests as the user of a role."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import requests

from tests.plugins.company import Company
from tests.support.fab import FabAirflow


@dataclass
class PagesServer:
    """A running API server and the company whose data it shows."""

    airflow: FabAirflow
    company: Company

    @property
    def url(self) -> str:
        """The URL of the compliance pages, without a trailing slash."""
        return f"{self.airflow.url}/compliance"

    @cached_property
    def routes(self) -> list[tuple[str, list[str]]]:
        """Return every route of the app with its methods."""
        from plugins.compliance_ui.app import compliance_pages  # imports much of Airflow

        app_routes: list[Any] = compliance_pages().routes
        return [(route.path, sorted(route.methods)) for route in app_routes]

    def get(
        self, role: str | None, path: str, language: str = "en", **headers: str
    ) -> requests.Response:
        """Request a page as the user of a role.

        Args:
            role: role of the user; None for a visitor without a login.
            path: path of the page below the URL of the compliance pages.
            language: value of the Accept-Language header.
            headers: further headers of the request.
        """
        return self.airflow.session(role).get(
            self.url + path,
            headers={"Accept-Language": language, **headers},
            timeout=120,
            allow_redirects=False,
        )
