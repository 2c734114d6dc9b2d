"""Options that several commands have, and functions that check the values of options."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.policy import PolicyPack


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
By = Annotated[str, typer.Option("--by", help="User id of the person who takes this action.")]


def day_option(help_text: str, *names: str) -> Any:
    """Return a typer option whose value is a date in the format YYYY-MM-DD.

    Args:
        help_text: description of the option.
        names: names of the option; none to derive the name from the parameter.
    """
    return typer.Option(*names, parser=_day, metavar="YYYY-MM-DD", help=help_text)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a date.", "Write it as 2026-12-31.") from None


def require_prefix(pack: PolicyPack, value: str) -> tuple[str | None, str]:
    """Split ``DATABASE/VALUE`` into the name of the mapped database and the text after the slash.

    If the text has no slash, the result is None and the whole text.

    Args:
        pack: the policy pack.
        value: value of an option, with or without the name of a database.

    Raises:
        UsageError: the text before the slash is not a mapped database, or the value is blank.
    """
    from include.holds.keys import split_key

    database, named = split_key(value)
    if database is not None and database not in pack.databases:
        raise UsageError(
            "The text before the slash names no database of the policy pack.",
            f"It maps: {', '.join(pack.databases)}. If the slash is part of the key, write "
            "DATABASE/KEY.",
        )
    if not named.strip():
        raise UsageError("The value after the slash is missing.", "Write DATABASE/VALUE.")
    return database, named
