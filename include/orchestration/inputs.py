"""Parameters that Airflow checks before a run exists: in its trigger form, its API and `run`.

Airflow checks a parameter by its JSON schema, with the formats registered in that process. This
module registers two formats, because a schema alone cannot require that a moment has passed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from airflow.sdk import Param
from jsonschema import FormatChecker  # type: ignore[import-untyped]  # it has no stubs

from include.composition import workplace_of
from include.services.errors import UsageError

PAST = "parcelseal-day-or-moment-that-has-begun"
OVER = "parcelseal-quarter-that-is-over"
# A browser, and a process without our formats, checks these patterns only. `$` alone would accept a
# line feed at the end in Python.
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OFFSET = "(Z|[+-][0-9]{2}:[0-9]{2})"
_MOMENT = rf"^({_DAY}(T[0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}(\.[0-9]{{1,6}})?)?{_OFFSET})?)?$(?!\n)"
_QUARTER = r"^20[0-9]{2}Q[1-4]$(?!\n)"


def past_moment_param(title: str, description: str) -> Param:
    """Return a parameter for a day or a moment with offset that has begun; empty by default."""
    return _param(_MOMENT, PAST, title, description)


def past_quarter_param(title: str, description: str) -> Param:
    """Return a parameter for a quarter that is over, ``2026Q3``; empty by default."""
    return _param(_QUARTER, OVER, title, description)


def install() -> None:
    """Register the formats in this process; safe to call twice."""
    FormatChecker.checkers[PAST] = (_checked(_has_begun), ())
    FormatChecker.checkers[OVER] = (_checked(_is_over), ())


def _param(pattern: str, kind: str, title: str, description: str) -> Param:
    install()
    return Param(
        None,
        type=["null", "string"],
        pattern=pattern,
        format=kind,
        title=title,
        description=description,
    )


def _checked(check: Callable[[str, datetime, str], bool]) -> Callable[[object], bool]:
    """Return a check of a parameter's value; an empty value, or one that is not text, passes.

    Args:
        check: takes the text, the present moment and the policy pack's timezone, and returns False
            or raises UsageError if the text is wrong.
    """

    def checked(value: object) -> bool:
        if not isinstance(value, str) or not value:
            return True
        services = workplace_of(os.environ)
        try:
            return check(value, services.clock.now(), services.pack.calendar.timezone)
        except UsageError:
            return False

    return checked


def _has_begun(text: str, now: datetime, timezone: str) -> bool:
    from include.retention.planning.planner import moment_of

    return moment_of(text, now, timezone) <= now


def _is_over(text: str, now: datetime, timezone: str) -> bool:
    from include.sampling.frame import quarter_of

    quarter_of(text, now, timezone)
    return True
