"""Deletes a required action from Airflow's database when the attempt of its task ends.

The docstring of include/orchestration/hitl_reset.py explains why this is necessary.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from include.orchestration import hitl_reset


class HitlResetPlugin(AirflowPlugin):
    """The Airflow plugin that deletes the required action of an attempt when the attempt ends.

    It acts in the API server and the scheduler, because these processes record the end of an
    attempt.
    """

    name = "asking_anew"

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Install the SQLAlchemy listeners, once in every process that loads plugins."""
        hitl_reset.install()
