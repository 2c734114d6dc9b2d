"""Find out who triggered a run, and whether people can answer its required actions."""

from __future__ import annotations

from airflow.sdk import get_current_context

SYSTEM_USERS = {"dag_test"}  # names that Airflow enters if no person triggered the run


def triggering_user() -> str | None:
    """Return the user id of the person who triggered the run of the running task.

    Return None if a schedule or a command started the run.
    """
    name = _triggering_user_name()
    return name if name and name not in SYSTEM_USERS else None


def is_in_process() -> bool:
    """Return whether a command executes all tasks of the current run in its own process.

    In such a run, no person can answer a required action.
    """
    return _triggering_user_name() in SYSTEM_USERS


def _triggering_user_name() -> str | None:
    name: str | None = getattr(get_current_context()["dag_run"], "triggering_user_name", None)
    return name
