"""Makes tasks begin sooner: include/orchestration/preloading.py."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from include.orchestration import preloading


class PreloadingPlugin(AirflowPlugin):
    """Tells Airflow whom to call before it forks tasks and parses."""

    name = "preloading"
    listeners = [preloading]  # noqa: RUF012 - as Airflow declares it
