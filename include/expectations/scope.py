"""Which records a usual run looks at: those whose answer may have changed since a mark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from include.expectations.broken import Key
from include.expectations.conditions import OTHER, SOURCE, Records, before, quoted, table_of
from include.expectations.marks import Mark, written_since
from include.policy.expectations import Expectation
from include.policy.kwargs import Distinct, ExistsIn, Recent, Related, ResidentId, Satisfy, says_now

# Great Expectations compares the records of a batch with each other only.
_AMONG_ALL = {
    "expect_column_values_to_be_unique",
    "expect_compound_columns_to_be_unique",
    "expect_table_row_count_to_be_between",
}

MOST_CHANGED = 0.2  # share of the records above which all are looked at
_WHOLE_NUMBERS = {"smallint", "integer", "bigint"}  # equal ones are written alike
_WRITTEN_ALIKE = _WHOLE_NUMBERS | {"uuid", "text", "character varying", "date", "boolean"}
MOST_KEYS = 200_000  # that are named one by one; above, all records are looked at


def looks_at_all(one: Expectation) -> bool:
    """Whether an expectation has to look at all records, whatever changed."""
    kwargs = one.kwargs
    return (
        one.type in _AMONG_ALL
        or one.depends_on_time
        or (isinstance(kwargs, Satisfy | Related) and kwargs.scope == "all")
    )


def may_mend_unchanged(one: Expectation) -> bool:
    """Whether a broken record may become good without a trace in it or in what it relates to.

    Its twin was changed; time went on.
    """
    kwargs = one.kwargs
    if isinstance(kwargs, ResidentId) and kwargs.part == "birth_date":
        return True  # a day to come comes
    return is_about_twins(one) or says_now(kwargs.model_dump(include={"condition", "where"}))


def is_about_twins(one: Expectation) -> bool:
    """Whether records are held against others of their collection, their twins."""
    return isinstance(one.kwargs, Distinct)


def lists_changed(
    engine: sa.Engine, records: Records, expectations: Sequence[Expectation], last: Mark
) -> set[str]:
    """The expectations whose list of values was written to since a mark, by id.

    They have to look at all records. That the list has as many values as then, the mark says.
    """
    lists = {one.id: one.kwargs for one in expectations if isinstance(one.kwargs, ExistsIn)}
    found = set()
    with engine.connect() as conn:
        for rule, kwargs in lists.items():
            listed = table_of(records.database.collections[kwargs.collection], ()).alias(OTHER)
            written = sa.exists().select_from(listed).where(written_since(OTHER, last))
            if conn.scalar(sa.select(written)):
                found.add(rule)
    return found


@dataclass(frozen=True)
class Narrowed:
    """The records that a usual run looks at.

    Attributes:
        records: they, and by rule about twins those of which twins are looked for.
        keys: of them.
        changed: how many of them were written since, or became too old.
        always: ids of the expectations that look at all records nevertheless.
    """

    records: Records
    keys: Sequence[Key]
    changed: int
    always: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scope:
    """Looks for the records of a usual run.

    Args:
        engine: on the open snapshot.
        records: the collection.
        key_types: PostgreSQL types of its key's columns.
        most: records; above, one scan of all costs less.
    """

    engine: sa.Engine
    records: Records
    key_types: Sequence[str]
    most: int

    def narrowed(
        self,
        expectations: Sequence[Expectation],
        last: Mark,
        now: datetime,
        again: Mapping[str, Iterable[Key]],
    ) -> Narrowed | None:
        """The records whose answer may have changed since a mark.

        Args:
            expectations: of the collection.
            last: the mark.
            now: the present moment.
            again: keys of the broken records of rules that `may_mend_unchanged`.

        Returns:
            None when there are too many.
        """
        # Each look at another table is a query of its own: under one OR, PostgreSQL searches what
        # was written there again for every record as soon as it expects more of it than its
        # working memory holds.
        own = [written_since(SOURCE, last)]
        if last.at < now:  # else nothing has aged, and the scan has one column less to look at
            recent = [one.kwargs for one in expectations if isinstance(one.kwargs, Recent)]
            own += [_aged(one, last, now) for one in recent]
        led = [
            self._led_to(one.kwargs, last)
            for one in expectations
            if isinstance(one.kwargs, Related)
        ]
        changed = self._keys(self._those(sa.or_(*own)))
        keys = set(changed)
        twins = {one.id: set(changed) for one in expectations if is_about_twins(one)}
        for rule, broken in again.items():
            twins.get(rule, keys).update(broken)
        for query in {str(one): one for one in led}.values():
            if len(keys) <= self.most:
                keys |= self._keys(query)
        if max(len(keys), *(len(one) for one in twins.values()), 0) > self.most:
            return None
        chosen = replace(
            self.records,
            where=self._among(keys),
            twins={rule: self._among(some, OTHER) for rule, some in twins.items()},
        )
        return Narrowed(chosen, list(keys), len(changed))

    def _keys(self, query: sa.Select[Any]) -> set[Key]:
        with self.engine.connect() as conn:
            return {tuple(row) for row in conn.execute(query.limit(self.most + 1))}

    def _those(self, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        source = self.records.table.alias(SOURCE)
        columns: list[sa.ColumnElement[Any]] = [
            sa.cast(source.c[one], sa.Text) for one in self.records.key
        ]
        return sa.select(*columns).select_from(source).where(condition)

    def _led_to(self, kwargs: Related, last: Mark) -> sa.Select[Any]:
        """Records to which related records lead that were written since."""
        other = table_of(self.records.database.collections[kwargs.collection], (kwargs.field,))
        writer = other.alias("writer")
        (field,) = writer.c
        if self.records.key == (kwargs.key,) and self.key_types[0] in _WHOLE_NUMBERS:
            # The key itself, and as it is written there: nobody has to look it up
            number = f"{quoted('writer', kwargs.field)}::{self.key_types[0]}::text"
            key: sa.ColumnElement[Any] = sa.literal_column(number)
            query = sa.select(key).select_from(writer).where(field.is_not(None)).distinct()
            return query.where(written_since("writer", last))
        related = sa.select(field).where(written_since("writer", last))
        return self._those(sa.literal_column(quoted(SOURCE, kwargs.key)).in_(related))

    def _among(self, keys: set[Key], alias: str = SOURCE) -> sa.ColumnElement[bool]:
        return _among(self.records, sorted(keys), self.key_types, alias)

    @property
    def keys_are_written_alike(self) -> bool:
        """Whether a record that is updated keeps its key as it stands in the register.

        Equal numbers may be written otherwise: 3 and 3.0.
        """
        return all(one.split("(")[0] in _WRITTEN_ALIKE for one in self.key_types)

    def gone(self, keys: Sequence[Key]) -> list[Key]:
        """Which of the keys no record has any more."""
        with self.engine.connect() as conn:
            found = conn.execute(_gone(self.records, keys, self.key_types))
            return [tuple(row) for row in found]


def _aged(kwargs: Recent, last: Mark, now: datetime) -> sa.ColumnElement[bool]:
    """Records that became too old since."""
    column: sa.ColumnElement[Any] = sa.literal_column(quoted(SOURCE, kwargs.column))
    was, is_now = (before(at, kwargs.period) for at in (last.at, now))
    return sa.and_(column >= was, column < is_now)


def _among(
    records: Records, keys: Sequence[Key], types: Sequence[str], alias: str = SOURCE
) -> sa.ColumnElement[bool]:
    columns: list[sa.ColumnElement[Any]] = [
        sa.literal_column(quoted(alias, one)) for one in records.key
    ]
    if len(columns) == 1:
        # PostgreSQL knows how many there are, and takes the index for few of them.
        listed = sa.type_coerce(_array([one for (one,) in keys]), postgresql.ARRAY(sa.Text))
        return columns[0] == sa.func.any(listed.op("::")(sa.literal_column(f"{types[0]}[]")))
    rows = _rows_of(keys, len(columns))
    wanted: list[sa.ColumnElement[Any]] = [
        sa.literal_column(f"given.k{at}::{one}") for at, one in enumerate(types)
    ]
    return sa.tuple_(*columns).in_(sa.select(*wanted).select_from(rows))


def _gone(records: Records, keys: Sequence[Key], types: Sequence[str]) -> sa.Select[Any]:
    """Which of the keys no record has, written exactly so."""
    source = records.table.alias(SOURCE)
    same = [
        sa.literal_column(quoted(SOURCE, name)) == sa.literal_column(f"given.k{at}::{kind}")
        for at, (name, kind) in enumerate(zip(records.key, types, strict=True))
    ]
    same += [
        sa.cast(sa.literal_column(quoted(SOURCE, name)), sa.Text)
        == sa.literal_column(f"given.k{at}")
        for at, name in enumerate(records.key)
    ]
    rows = _rows_of(keys, len(types))
    return sa.select(*rows.c).where(~sa.exists().select_from(source).where(*same))


def _rows_of(keys: Sequence[Key], width: int) -> sa.TableValuedAlias:
    names = [f"k{at}" for at in range(width)]
    return sa.func.unnest(*_arrays(keys, width)).table_valued(*names).render_derived(name="given")


def _arrays(keys: Sequence[Key], width: int) -> list[sa.ColumnElement[Any]]:
    return [sa.cast(_array([key[at] for key in keys]), sa.ARRAY(sa.Text)) for at in range(width)]


def _array(texts: list[str]) -> sa.ColumnElement[Any]:
    together = "".join(texts)
    if (
        all(texts) and together.isascii() and together.isdigit()
    ):  # nothing to quote: five times as fast
        return sa.cast(sa.bindparam(None, "{" + ",".join(texts) + "}", sa.Text), sa.Text)
    text = sa.ARRAY(sa.Text)
    return sa.cast(sa.bindparam(None, texts, text), text)
