"""Makes tasks start faster: Airflow imports the modules that tasks need before it forks processes.

The docstring of include/orchestration/preloading.py explains why this is faster.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from include.orchestration import preloading


class PreloadingPlugin(AirflowPlugin):
    """The plugin that imports modules before Airflow forks processes for tasks and DAG parsing."""

    name = "preloading"
    listeners = [preloading]  # noqa: RUF012 - as Airflow declares it
