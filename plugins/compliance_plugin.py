"""Adds the compliance pages of plugins/compliance_ui to Airflow."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from plugins.compliance_ui import NAME, PREFIX


class Pages:
    """The ASGI app of the compliance pages, imported at the first request.

    Airflow loads plugins in every process, also in each task and in each process that parses a DAG
    file. Most of these processes would spend more time on the import of the app than on their own
    work.
    """

    def __init__(self) -> None:
        self._app: Any = None
        self._importing: asyncio.Lock | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward a request to the app. The first request imports the app."""
        if self._app is None:
            self._importing = self._importing or asyncio.Lock()
            async with self._importing:
                if self._app is None:
                    self._app = await asyncio.to_thread(_import_app)
        await self._app(scope, receive, send)


def _import_app() -> Any:
    from plugins.compliance_ui.app import compliance_pages

    return compliance_pages()


class CompliancePlugin(AirflowPlugin):
    """The plugin that adds the compliance pages to the API server and to Airflow's navigation."""

    name = "compliance"
    fastapi_apps = [  # noqa: RUF012 - as Airflow declares it
        {"app": Pages(), "url_prefix": PREFIX, "name": NAME}
    ]
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {"name": NAME, "href": f"{PREFIX}/", "destination": "nav", "url_route": "compliance"}
    ]
