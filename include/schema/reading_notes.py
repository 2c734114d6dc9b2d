"""Notes in a draft about its sample: the number of rows, and the values that were not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from include.schema.live import LiveTable
from include.schema.patterns import LOCK_TIMEOUT, NO_RIGHT, TIMEOUT, TableCounts

NOTHING_TO_READ = "55000"
_REASONS = {
    NO_RIGHT: (
        "its user has no right to read it",
        "GRANT pg_read_all_data TO the user and draft again",
    ),
    "57014": (
        f"reading it took longer than {TIMEOUT:.0f} s",
        "draft again at a time of less load",
    ),
    "55P03": (
        f"another session held its lock for {LOCK_TIMEOUT.removesuffix('s')} s",
        "draft again",
    ),
    NOTHING_TO_READ: (
        "it has nothing to read: a materialized view that was never refreshed, or a foreign table",
        "refresh the view and draft again",
    ),
    "08": (
        "the server of this foreign table does not answer",
        "draft again when it does, or map the database on that server instead",
    ),
    "HV": (
        "the server of this foreign table refused to answer",
        "check its foreign server and user mapping, and draft again",
    ),
    "53": ("the server lacks memory, disk or connections", "draft again at a time of less load"),
}


def explained(code: str) -> tuple[str, str]:
    """Return the reason for values that could not be read, and the action.

    Args:
        code: SQLSTATE.
    """
    explanation = _REASONS.get(code) or _REASONS.get(code[:2])
    if explanation is None:
        return f"PostgreSQL ended the statement with SQLSTATE {code}", "see the log of the server"
    reason, action = explanation
    return f"{reason} (SQLSTATE {code})", action


def reason_of(code: str) -> str:
    """Return the reason for values that could not be read, and the action, in one sentence.

    Args:
        code: SQLSTATE.
    """
    return ": ".join(explained(code))


def first_refusal(counts: Mapping[str, TableCounts]) -> tuple[str, str] | None:
    """Return a table that could not be read and the SQLSTATE, if no table could be read.

    Args:
        counts: by label of the table.
    """
    if any(table.columns for table in counts.values()):
        return None
    refused = ((label, table.refused) for label, table in counts.items())
    return next((pair for pair in refused if pair[1] not in {"", NOTHING_TO_READ}), None)


def notes(table: LiveTable, counts: TableCounts) -> Iterator[str]:
    """Yield notes on the number of rows that were read of a table, and on unread values."""
    if counts.refused and not counts.columns:
        yield f"Guessed by names alone, as no value was read: {reason_of(counts.refused)}."
        return
    if counts.columns:
        yield f"Values: {_rows(table, counts)}."
    if counts.refused:
        yield f"Other columns are guessed by their names: {reason_of(counts.refused)}."
    by_code: dict[str, list[str]] = {}
    for column, code in counts.unread.items():
        by_code.setdefault(code, []).append(column)
    for code, columns in by_code.items():
        yield f"Not read: {', '.join(columns)}: {reason_of(code)}."


def _rows(table: LiveTable, counts: TableCounts) -> str:
    if counts.is_sampled:
        return f"{counts.rows:,} of about {table.rows:,} rows, from all over the table"
    if counts.rows < counts.most:
        return "all rows (there are none)" if not counts.rows else f"all {counts.rows:,} rows"
    estimate = f"about {table.rows:,}" if table.rows else "an unknown number of"
    return f"the first {counts.rows:,} of {estimate} rows"
