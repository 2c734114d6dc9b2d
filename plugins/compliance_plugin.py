"""Adds the compliance pages of plugins/compliance_ui to Airflow."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.bases.operatorlink import BaseOperatorLink

from plugins.compliance_ui import NAME, PREFIX

EVIDENCE = "Evidence"


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


class EvidenceLink(BaseOperatorLink):
    """The button of a task instance that leads to the evidence bundle of its run.

    Tasks of other DAGs have no button.
    """

    name = EVIDENCE

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the path of the run's evidence; empty if the DAG is not one of the workflows.

        Args:
            operator: operator of the task.
            ti_key: key of the task instance, with DAG id and run id.
        """
        # The registry takes a second, which most processes can save.
        from include.orchestration.addresses import run_path
        from include.registry import WORKFLOWS

        del operator
        return run_path(ti_key.dag_id, ti_key.run_id) if ti_key.dag_id in WORKFLOWS else ""


class CompliancePlugin(AirflowPlugin):
    """The plugin that adds the compliance pages to the API server and to Airflow's pages.

    The pages are in Airflow's navigation. Each run has a tab, and each task instance a button, that
    leads to the evidence bundle of the run.
    """

    name = "compliance"
    global_operator_extra_links = [EvidenceLink()]  # noqa: RUF012 - as Airflow declares it
    fastapi_apps = [  # noqa: RUF012 - as Airflow declares it
        {"app": Pages(), "url_prefix": PREFIX, "name": NAME}
    ]
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {"name": NAME, "href": f"{PREFIX}/", "destination": "nav", "url_route": "compliance"},
        {
            "name": EVIDENCE,
            "href": f"{PREFIX}/runs/{{DAG_ID}}/{{RUN_ID}}",  # Airflow fills in the ids
            "destination": "dag_run",
            "url_route": "evidence",
        },
    ]
