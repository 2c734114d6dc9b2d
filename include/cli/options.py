"""Options that several commands have, and names and keys checked against the policy pack."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.policy import PolicyPack


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
By = Annotated[str, typer.Option("--by", help="User id of the person.")]


def day_option(help_text: str) -> Any:
    """Return an option whose value is a day."""
    return typer.Option(parser=_day, metavar="YYYY-MM-DD", help=help_text)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no day.", "Write 2026-12-31.") from None


def require_prefix(pack: PolicyPack, value: str) -> tuple[str | None, str]:
    """Return the mapped database and the rest of ``<database>/VALUE``; None where no slash is.

    Raises:
        UsageError: what precedes the first slash is no mapped database, or nothing follows it.
    """
    from include.holds.keys import split

    database, named = split(value)
    if database is not None and database not in pack.databases:
        raise UsageError(
            "What stands before the slash is no database that the policy pack maps.",
            f"It maps: {', '.join(pack.databases)}. A key with a slash of its own is written "
            "DATABASE/KEY.",
        )
    if not named.strip():
        raise UsageError("Nothing follows the slash.", "It is written DATABASE/VALUE.")
    return database, named
