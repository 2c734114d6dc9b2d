"""Registers JSON schema formats of DAG parameters, such as a day that is not in the future.

With these formats Airflow refuses wrong parameter values before it creates a run.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from include.orchestration import param_formats


class ParamFormatsPlugin(AirflowPlugin):
    """The Airflow plugin that registers JSON schema formats of DAG parameters.

    The API server needs the formats to check the values that a user enters when triggering a DAG.
    """

    name = "trigger_inputs"

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Register the JSON schema formats, once in every process that loads plugins."""
        param_formats.install()
