"""Decide whether two entries name the same person, as separation of duties requires.

Every comparison of people uses it: requester and approver, enterer and reviewer, owner and tester.
Databases compare spellings only, by collations of their own. So queries return every spelling, and
the comparison is made here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from include.approvals.invisible import is_invisible


def as_compared(name: str) -> str:
    """Return a person's name, number or account as it is compared, however it was typed.

    Compatibility forms, case, blanks and invisible characters make no difference: the caseless
    match of Unicode (3.13, D146) without white space. Accents and other combining marks do.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = (sign for sign in folded if not sign.isspace() and not is_invisible(sign))
    return unicodedata.normalize("NFKC", "".join(visible))


def same_person(name: str, other: str) -> bool:
    """Return whether two entries name the same person; an empty entry names nobody."""
    return as_compared(name) == as_compared(other) != ""


def is_among(name: str, people: Iterable[str]) -> bool:
    """Return whether people include a person; an empty entry is never included."""
    return any(same_person(name, person) for person in people)


def without(people: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the people without the others, in their order and spelling."""
    left_out = {as_compared(other) for other in others}
    return [person for person in people if as_compared(person) not in left_out]
