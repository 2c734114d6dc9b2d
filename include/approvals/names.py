"""The one rule by which two entries name the same person: what separation of duties compares.

Every comparison of people uses it: requester and approver, enterer and reviewer, owner and tester.
Databases compare spellings only, by collations of their own. So queries return every spelling, and
the comparison is made here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_INVISIBLE = ("Cf", "Cc")


def as_compared(name: str) -> str:
    """Return a person's name, number or account as it is compared, however it was typed.

    Compatibility forms, case, blanks and invisible characters make no difference: the caseless
    match of Unicode (3.13, D146) without white space.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = (
        one for one in folded if not one.isspace() and unicodedata.category(one) not in _INVISIBLE
    )
    return unicodedata.normalize("NFKC", "".join(visible))


def same_person(one: str, other: str) -> bool:
    """Return whether two entries name the same person; an empty one names nobody."""
    return as_compared(one) == as_compared(other) != ""


def is_among(name: str, people: Iterable[str]) -> bool:
    """Return whether a person is one of several; nobody is not."""
    return any(same_person(name, one) for one in people)


def without(people: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the people who are none of the others, in their order and spelling."""
    left_out = {as_compared(one) for one in others}
    return [one for one in people if as_compared(one) not in left_out]
