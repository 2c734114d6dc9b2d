"""Puts the compliance pages into Airflow: plugins/compliance_ui."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from plugins.compliance_ui import NAME, PREFIX


class Pages:
    """The app of the pages, imported with the first request.

    Airflow loads plugins in every process, tasks and parses of DAG files among them; the app takes
    longer to import than most of them work.
    """

    def __init__(self) -> None:
        self._app: Any = None
        self._importing: asyncio.Lock | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        if self._app is None:
            self._importing = self._importing or asyncio.Lock()
            async with self._importing:
                if self._app is None:
                    self._app = await asyncio.to_thread(_imported)
        await self._app(scope, receive, send)


def _imported() -> Any:
    from plugins.compliance_ui.app import compliance_pages

    return compliance_pages()


class CompliancePlugin(AirflowPlugin):
    """Mounts the pages in the API server and shows them in Airflow's navigation."""

    name = "compliance"
    fastapi_apps = [  # noqa: RUF012 - as Airflow declares it
        {"app": Pages(), "url_prefix": PREFIX, "name": NAME}
    ]
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {"name": NAME, "href": f"{PREFIX}/", "destination": "nav", "url_route": "compliance"}
    ]
