"""Figures of people where the frozen list is longer than what was counted: upper bounds.

Whoever was found affected once stays on the list, though a later count does not find them, and
somebody may come between the count and the list. Nobody counted all of the list at once then.
"""

from __future__ import annotations

from collections.abc import Sequence

from include.incident.scope import Counted


def bounded(before: Sequence[Counted], newest: Counted, people: int) -> Counted:
    """Figures of a database of which none is less than the truth about everybody on the list.

    Let B and N be those whom a count before and the newest one found, and ``extra`` how many more
    the list has than the greater of the two. Whether a person is under 14, or of unknown age, does
    not depend on the records in which they were found: of such a kind K, N adds no more to B than
    it has people beyond B, and the other way round, so ``|B and K or N and K|`` is at most the
    greater of both figures and ``extra``. What a record has of a person does: the same person may
    count by the one and not by the other, so the figures are added. None is more than the list.
    Whoever came since stands in no count; they are among the ``extra``, with the types that others
    have.

    Records, departments and people who stand on records only are left as they are: at least so
    many. What was counted by the same words before is in the newest figures already.

    Args:
        before: by counts before, since the list was compared last, that other words selected.
        newest: by the newest count, no figure less than before.
        people: on the list, more than the newest count has.
    """
    extra = people - newest.subjects

    def of_person(count: int) -> int:
        return min(count + extra, people)

    def of_records(count: int, *earlier: int) -> int:
        return min(sum(earlier, count + extra), people)

    return newest.model_copy(
        update={
            "subjects": people,
            "sensitive": of_records(newest.sensitive, *(one.sensitive for one in before)),
            "categories": {
                name: of_records(count, *(one.categories.get(name, 0) for one in before))
                for name, count in newest.categories.items()
            },
            "minors": None if newest.minors is None else of_person(newest.minors),
            "age_unknown": of_person(newest.age_unknown),
            "unseen": max(newest.unseen, extra),
        }
    )
