"""Who started a run, and whether people can have a part in it."""

from __future__ import annotations

from airflow.sdk import get_current_context

NOT_PEOPLE = {"dag_test"}  # whom Airflow names where nobody started a run


def started_by() -> str | None:
    """Return the user id of who started the run; None where its schedule or a command did."""
    name = _named()
    return name if name and name not in NOT_PEOPLE else None


def is_in_process() -> bool:
    """Whether the run is a command's: in one process, and without people."""
    return _named() in NOT_PEOPLE


def _named() -> str | None:
    name: str | None = getattr(get_current_context()["dag_run"], "triggering_user_name", None)
    return name
