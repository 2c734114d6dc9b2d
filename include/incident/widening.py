"""What is affected after more was found: the new count, and nothing less than the one before.

Whoever was found affected stays so. Somebody who enters at night only what came to it would else
make an incident smaller: a lower grade, a letter that leaves out types of information.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from include.incident.scope import Counted, Scope
from include.incident.selection import Selection
from include.services.errors import UsageError


def refuse_less(before: Scope | None, more: Selection) -> None:
    """Refuse a selection that leaves out a database in which people are affected.

    Args:
        before: what is affected, as it was counted last; None where nobody counted.
        more: `selection.checked`.

    Raises:
        UsageError: it does; names the databases.
    """
    known = before.affected() if before else {}
    left = [one for one in known if one not in more.databases]
    if left:
        raise UsageError(
            f"What is affected was entered without {', '.join(left)}, which is affected already.",
            "Enter all that is affected as far as is known now, not only what came to it.",
        )


def widened(before: Scope | None, counted: Scope) -> tuple[Scope, list[str]]:
    """The new count with, in every database, no figure less than before.

    What cannot be counted now and could be before stands with the figures of then, and as unknown.

    Args:
        before: as it was counted last; None where nobody counted.
        counted: by the wider selection.

    Returns:
        What is affected; and the databases in which the new count found fewer people.
    """
    known = {one.database: one for one in before.counted} if before else {}
    unknown = {one.database for one in counted.unknown}
    found = [
        _more(known[one.database], one) if one.database in known else one for one in counted.counted
    ]
    found += [one for name, one in known.items() if name in unknown]
    fewer = [
        one.database
        for one in counted.counted
        if one.database in known and one.subjects < known[one.database].subjects
    ]
    return counted.model_copy(update={"counted": tuple(found)}), fewer


def _more(before: Counted, now: Counted) -> Counted:
    """Figure by figure the greater one; what was listed and not found is that of the new count."""
    figures = {
        name: max(getattr(before, name), getattr(now, name))
        for name in (
            "everything",
            "subjects",
            "sensitive",
            "age_unknown",
            "unlisted",
            "unseen",
            "undated",
        )
    }
    figures |= {
        name: _each(getattr(before, name), getattr(now, name))
        for name in ("records", "categories", "departments", "accounts")
    }
    ages = [one for one in (before.minors, now.minors) if one is not None]
    return now.model_copy(
        update=figures
        | {
            "minors": max(ages, default=None),
            "log_rows": max(before.log_rows, now.log_rows),
            "first": _first(before.first, now.first),
            "last": _last(before.last, now.last),
            "log_first": _first(before.log_first, now.log_first),
            "log_last": _last(before.log_last, now.log_last),
        }
    )


def _each(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    names = dict.fromkeys([*before, *now])
    return {one: max(before.get(one, 0), now.get(one, 0)) for one in names}


def _first(*moments: datetime | None) -> datetime | None:
    return min((one for one in moments if one), default=None)


def _last(*moments: datetime | None) -> datetime | None:
    return max((one for one in moments if one), default=None)
