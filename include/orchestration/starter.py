"""The user who triggered a run, and whether people can answer its questions."""

from __future__ import annotations

from airflow.sdk import get_current_context

NOT_PEOPLE = {"dag_test"}  # whom Airflow names where nobody started a run


def started_by() -> str | None:
    """Return the id of the user who triggered the run; None for a schedule or a command."""
    name = _named()
    return name if name and name not in NOT_PEOPLE else None


def is_in_process() -> bool:
    """Return whether a command runs all tasks in its own process, where no person can answer."""
    return _named() in NOT_PEOPLE


def _named() -> str | None:
    name: str | None = getattr(get_current_context()["dag_run"], "triggering_user_name", None)
    return name
