"""A grade is proposed from what was counted; a person confirms it, or says why it is another.

The worst grade that any figure reaches is proposed. What nobody could count may be anything: then
the grade is the least that it can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from include.incident.rules import Grade, IncidentRules
from include.incident.scope import Scope
from include.messages import Message, _, listed, verbatim


@dataclass(frozen=True)
class Proposal:
    """A grade that the counts propose.

    Attributes:
        grade: of incident.yaml.
        certain: whether everything that it depends on was counted.
        words: which grade, why, and what could not be counted.
    """

    grade: str
    certain: bool
    words: Message


def propose(scope: Scope, rules: IncidentRules) -> Proposal:
    """Propose the worst grade that any figure reaches.

    Args:
        scope: what is affected.
        rules: incident.yaml.
    """
    worst, reasons = rules.grades[0], list(_reached(scope, rules.grades[0]))
    for grade in rules.grades[1:]:
        if found := list(_reached(scope, grade)):
            worst, reasons = grade, found
    why = listed(reasons) if reasons else _("no figure of a worse grade is reached")
    certain = scope.complete and not _minors_matter(scope, rules, worst)
    if scope.unknown:
        names = listed([verbatim(one.database) for one in scope.unknown])
        words = _(
            "Proposed grade: AT LEAST {grade} ({why}). Nobody could count in {databases}: it may "
            "be worse.",
            grade=worst.message,
            why=why,
            databases=names,
        )
    elif not certain:
        words = _(
            "Proposed grade: at least {grade} ({why}). Nobody knows how many of them are under 14.",
            grade=worst.message,
            why=why,
        )
    else:
        words = _("Proposed grade: {grade} ({why}).", grade=worst.message, why=why)
    return Proposal(worst.id, certain, words)


def _figures(scope: Scope) -> dict[str, int | None]:
    return {"people": scope.subjects, "sensitive": scope.sensitive, "minors": scope.minors}


def _reached(scope: Scope, grade: Grade) -> Iterator[Message]:
    for name, count in _figures(scope).items():
        limit = getattr(grade, name)
        if limit is not None and count is not None and count >= limit:
            yield _reason(name, count, limit)


def _reason(figure: str, count: int, limit: int) -> Message:
    if figure == "people":
        return _("{count} people are affected, from {limit} on", count=count, limit=limit)
    if figure == "sensitive":
        return _(
            "sensitive information of {count} people is affected, from {limit} on",
            count=count,
            limit=limit,
        )
    return _("{count} people under 14 are affected, from {limit} on", count=count, limit=limit)


def _minors_matter(scope: Scope, rules: IncidentRules, worst: Grade) -> bool:
    """Whether people of whom nobody knows the age could make it worse.

    Whoever is under 14 counts as sensitive, too.
    """
    unknown = scope.subjects if scope.minors is None else scope.age_unknown
    at_most = (scope.minors or 0) + unknown
    worse = rules.grades[rules.grades.index(worst) + 1 :]
    sensitive = min(scope.sensitive + unknown, scope.subjects)
    return any(
        (one.minors is not None and at_most >= one.minors)
        or (one.sensitive is not None and unknown > 0 and sensitive >= one.sensitive)
        for one in worse
    )
