"""JSON schema formats of run parameters that must lie in the past.

Airflow validates the parameters of a run before it creates the run: in the trigger form, in the API
and in `./parcelseal run`. It uses the JSON schema of each parameter, and the formats that are
registered in its process. A schema alone cannot require that a time is in the past. So this module
registers two formats: one for a past day or time, and one for a past quarter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from airflow.sdk import Param
from jsonschema import FormatChecker  # type: ignore[import-untyped]  # it has no stubs

from include.approvals.form import OVER, PAST
from include.composition import services_from
from include.services.errors import UsageError

# Browsers, and processes without our formats, check only these patterns. In Python, `$` alone would
# accept a line feed at the end.
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OFFSET = "(Z|[+-][0-9]{2}:[0-9]{2})"
_MOMENT = rf"^({_DAY}(T[0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}(\.[0-9]{{1,6}})?)?{_OFFSET})?)?$(?!\n)"
_QUARTER = r"^20[0-9]{2}Q[1-4]$(?!\n)"


def past_moment_param(title: str, description: str) -> Param:
    """Return a run parameter for a day or a time in the past, with an empty default.

    The value is a day that has begun, or a past time with its UTC offset.
    """
    return _param(_MOMENT, PAST, title, description)


def past_quarter_param(title: str, description: str) -> Param:
    """Return a run parameter for a quarter that has ended, such as ``2026Q3``.

    The default is empty.
    """
    return _param(_QUARTER, OVER, title, description)


def install() -> None:
    """Register the formats of this module in this process.

    Repeated calls have no further effect.
    """
    FormatChecker.checkers[PAST] = (_format_check(_has_begun), ())
    FormatChecker.checkers[OVER] = (_format_check(_is_over), ())


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


def _format_check(check: Callable[[str, datetime, str], bool]) -> Callable[[object], bool]:
    """Return a function that validates the value of a run parameter.

    An empty value is always valid, and a value that is not a text is always valid.

    Args:
        check: receives the text, the current time and the policy pack's timezone. Returns False or
            raises UsageError if the text is invalid.
    """

    def is_valid(value: object) -> bool:
        if not isinstance(value, str) or not value:
            return True
        services = services_from(os.environ)
        try:
            return check(value, services.clock.now(), services.pack.calendar.timezone)
        except UsageError:
            return False

    return is_valid


def _has_begun(text: str, now: datetime, timezone: str) -> bool:
    from include.retention.planning.planner import parse_as_of

    return parse_as_of(text, now, timezone) <= now


def _is_over(text: str, now: datetime, timezone: str) -> bool:
    from include.sampling.frame import quarter_of

    quarter_of(text, now, timezone)
    return True
