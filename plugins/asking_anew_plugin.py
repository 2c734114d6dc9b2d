"""Makes Airflow forget a question with the try that asked it: include/orchestration/anew.py."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from include.orchestration import anew


class AskingAnewPlugin(AirflowPlugin):
    """Loaded by API server and scheduler, where tries end."""

    name = "asking_anew"

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Once in every process that loads plugins."""
        anew.install()
