"""Through which tables a record's data subject is found, as the text of the pack shows it.

What a view or a function hides is not seen here. It costs an order that loses no link, and no
record: the keys of a request's records are remembered before anything is erased.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from include.policy.retention import RetentionRule
from include.retention.postgres.relations import Relation

Name = TypeVar("Name", bound=Hashable)
_OWN_COLUMN = re.compile(r'\s*t\s*\.\s*(?:"((?:[^"]|"")+)"|(\w+))\s*')


def own_column(expression: str) -> str | None:
    """Return the column of the record that an expression is; None where it is anything else."""
    matched = _OWN_COLUMN.fullmatch(expression)
    if matched is None:
        return None
    quoted, plain = matched.groups()
    return quoted.replace('""', '"') if quoted else plain.lower()


def names(rule: RetentionRule, relation: Relation) -> bool:
    """Return whether a class finds its records through a table.

    Its keys and its condition count. A word that only looks like the table's name counts too.
    """
    texts = [*rule.keys.subject, *rule.keys.waybill, *rule.keys.case, rule.where or ""]
    text = "\n".join(texts)
    if not text.strip():  # each class is compared with each other one
        return False
    return re.search(rf"(?<!\w){re.escape(relation.name)}(?!\w)", text, re.IGNORECASE) is not None


def order(before: Mapping[Name, list[Name]], links: Sequence[tuple[Name, Name]]) -> None:
    """Put what is found through others before these, where no stronger rule says otherwise.

    Args:
        before: what has to go before each; changed in place.
        links: pairs of which the first is found through the second.
    """
    for first, second in links:
        if first != second and first not in before[second] and second not in reached(first, before):
            before[second].append(first)


def reached(start: Name, following: Mapping[Name, Iterable[Name]]) -> set[Name]:
    """Return all that follows one, directly or not."""
    found: set[Name] = set()
    waiting = list(following[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += following[name]
    return found
