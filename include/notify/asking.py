"""Ask workflows just before a batch is sent: which notices are still due, and their addresses.

Whoever cannot answer lets its kind wait. Of its error the name alone is kept: the words may quote
what is in a database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from include.notify.texts import TextChanged, kept_texts

Confirm = Callable[[Sequence[str]], set[str]]
"""Of these keys of a kind: those that are still wanted now."""

LookUp = Callable[[Sequence[str]], Mapping[str, str]]
"""Of these keys of a kind: the address of each now; one that is missing or empty has none.

It is kept nowhere: neither in the state database nor in a log, a record or an error's words."""


@dataclass
class Asked:
    """The answers of workflows about notices.

    Attributes:
        wanted: ids of those that are still wanted.
        unsure: kinds that nobody could be asked about.
        addresses: by id, of those whose address is looked up; empty where there is none.
        texts: of the letters, by digest.
    """

    wanted: set[int] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    addresses: dict[int, str] = field(default_factory=dict, repr=False)
    texts: dict[str, str] = field(default_factory=dict, repr=False)


def ask(
    conn: Connection,
    found: Sequence[Any],
    confirm: Mapping[str, Confirm],
    look_up: Mapping[str, LookUp],
    unsure: dict[str, str],
) -> Asked:
    """Ask the workflow of each kind about its notices.

    Args:
        conn: the state database.
        found: rows of the notices: id, kind, key, text and looked_up of each, and whether its
            recipient refused it.
        confirm: by kind; notices of a kind without one are always wanted.
        look_up: by kind.
        unsure: gets the kinds that nobody could be asked about, with the name of the error.
    """
    mine: dict[str, list[Any]] = {}
    for notice in found:
        if not notice["refused"]:
            mine.setdefault(notice["kind"], []).append(notice)
    asked = Asked()
    for kind, rows in mine.items():
        try:
            wanted = _wanted(rows, confirm.get(kind))
            addresses = _addresses(
                [notice for notice in wanted if notice["looked_up"]], look_up.get(kind)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the other kinds go
            unsure[kind] = type(error).__name__
            asked.unsure.add(kind)
            continue
        try:
            asked.texts |= kept_texts(conn, (notice["text"] for notice in wanted if notice["text"]))
        except TextChanged as error:
            unsure[kind] = type(error).__name__
            asked.unsure.add(kind)
            continue
        asked.wanted.update(notice["id"] for notice in wanted)
        asked.addresses |= addresses
    return asked


def _wanted(rows: Sequence[Any], confirm: Confirm | None) -> Sequence[Any]:
    if confirm is None:
        return rows
    keys = confirm([row["key"] for row in rows])
    return [row for row in rows if row["key"] in keys]


def _addresses(rows: Sequence[Any], look_up: LookUp | None) -> dict[int, str]:
    if not rows:
        return {}
    if look_up is None:
        raise LookupError
    found = look_up([row["key"] for row in rows])
    return {row["id"]: found.get(row["key"]) or "" for row in rows}
