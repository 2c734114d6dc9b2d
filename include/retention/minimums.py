"""Records that stay for good since a `minimum` has no date from which it counts."""

from __future__ import annotations

from collections.abc import Collection

from psycopg.sql import SQL, Composable

from include.erasure.masks import to_mask
from include.policy.fragments import both, either, fixed
from include.policy.retention import SqlClock
from include.retention.classes import RecordClass
from include.retention.graph import FALSE


def lacks_minimum(record_class: RecordClass, subjects: Collection[str]) -> Composable:
    """Return the condition that only the missing date of a `minimum` keeps a record.

    Its own period is over, or its data subject asked, and the date is null from which a law counts:
    the record stays until somebody fills the date in.

    Args:
        record_class: the class, bound to its table.
        subjects: keys of data subjects who asked to be erased.
    """
    rule, relation = record_class.rule, record_class.relation
    missing = [
        bound.not_started
        for bound, minimum in zip(record_class.minima, rule.minimum, strict=True)
        if minimum.clock is not None
        and (isinstance(minimum.clock, SqlClock) or relation.nullable >= set(minimum.clock))
    ]
    if not missing:
        return FALSE
    over = record_class.clock.over
    if rule.on_request and subjects:
        over = either([over, record_class.linked(subjects)])
    conditions = [record_class.belongs, over, either(missing)]
    if rule.action == "mask":  # and it is not masked yet
        conditions.append(fixed(to_mask(record_class.mask, record_class.shapes)))
    return SQL("({} IS TRUE)").format(both(conditions))
