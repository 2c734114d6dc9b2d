"""Makes Airflow refuse wrong parameters before a run exists: include/orchestration/inputs.py."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from include.orchestration import inputs


class TriggerInputsPlugin(AirflowPlugin):
    """Loaded by the API server, which checks parameters of the trigger form."""

    name = "trigger_inputs"

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Install the formats, once in every process that loads plugins."""
        inputs.install()
