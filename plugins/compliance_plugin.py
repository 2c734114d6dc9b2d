"""Puts the compliance pages into Airflow: plugins/compliance_ui."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from plugins.compliance_ui.app import NAME, PREFIX, compliance_pages


class CompliancePlugin(AirflowPlugin):
    """Mounts the pages in the API server and shows them in Airflow's navigation."""

    name = "compliance"
    fastapi_apps = [  # noqa: RUF012 - as Airflow declares it
        {"app": compliance_pages(), "url_prefix": PREFIX, "name": NAME}
    ]
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {"name": NAME, "href": f"{PREFIX}/", "destination": "nav", "url_route": "compliance"}
    ]
