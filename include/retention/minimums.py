"""Records that are never deleted, because the start date of a `minimum` is null."""

from __future__ import annotations

from collections.abc import Collection

from psycopg.sql import SQL, Composable

from include.erasure.masks import to_mask
from include.policy.fragments import both, either, fixed
from include.policy.retention import SqlClock
from include.retention.classes import RecordClass
from include.retention.graph import FALSE


def lacks_minimum(record_class: RecordClass, subjects: Collection[str]) -> Composable:
    """Return the condition that only the missing start date of a `minimum` keeps a record.

    The record's own period is over, or its data subject requested erasure, but the start date of
    the legal period is null. The record stays until a person fills in the date.

    Args:
        record_class: the class, bound to its table.
        subjects: keys of data subjects who requested erasure.
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
    if rule.action == "mask":  # masked records need no date
        conditions.append(fixed(to_mask(record_class.mask, record_class.shapes)))
    return SQL("({} IS TRUE)").format(both(conditions))
