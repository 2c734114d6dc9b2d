"""Which people a pack means: a staff table, and groups of those in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from include.policy.rules import Name, Rule, Sql, Text

if TYPE_CHECKING:
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]


def as_tuple(value: Any) -> Any:
    """One text is a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class Group(Rule):
    """People of one duty, by user id in Airflow.

    Attributes:
        accounts: user ids.
        where: SQL condition over the staff row ``p`` of the ``staff`` beside it.
    """

    accounts: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = ()
    where: Sql | None = None


class Staff(Rule):
    """Where the people are.

    Attributes:
        database: database of the data map; needed where several have the collection.
        collection: staff table.
        account: column with the person's user id in Airflow.
    """

    database: Name | None = None
    collection: Name
    account: Name


def staff_faults(staff: Staff | None, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Say what of a staff table the data maps do not have; places begin at ``staff``."""
    if staff is None:
        return
    holders = inventory.databases_with(staff.collection)
    named = staff.database
    if not holders or (named is not None and named not in holders):
        message = f"no data map has a collection {staff.collection!r}"
        yield ("staff", "collection"), message
    elif named is None and len(holders) > 1:
        message = f"several databases have it: name one as database: {', '.join(holders)}"
        yield ("staff", "collection"), message
    elif not inventory.has_column(named or holders[0], staff.collection, staff.account):
        message = f"collection {staff.collection!r} has no field {staff.account!r}"
        yield ("staff", "account"), message
