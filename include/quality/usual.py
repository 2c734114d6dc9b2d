"""What a usual run looks at: the records whose answer may have changed since the last check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from include.expectations import marks, scope
from include.expectations.check import Snapshot
from include.expectations.conditions import Records
from include.messages import Message, _
from include.policy.expectations import Expectation
from include.quality import counts, history
from include.quality.counts import Counts
from include.quality.history import LastCheck
from include.quality.run import Run
from include.quarantine import register
from include.quarantine.keys import tells_a_person
from include.schema.live import LiveTable


@dataclass(frozen=True)
class Usual:
    """A usual run on one collection.

    Args:
        view: the snapshot that is checked.
        conn: to the state database, in no transaction.
        records: of the collection.
        types: PostgreSQL's, of the key's columns.
        expectations: of the collection.
        run: the run that checks.
        last: the last sealed check.
        deleted: rows that were deleted since; None where nobody knows.
    """

    view: Snapshot
    conn: Connection
    records: Records
    types: Sequence[str]
    expectations: Sequence[Expectation]
    run: Run
    last: LastCheck
    deleted: int | None

    def carried(self) -> Counts | None:
        """The figures of the last check, where it is known how far they may be off."""
        if self.deleted is None:
            return None
        off = self.last.mark.uncounted + self.deleted
        found = counts.carried(self.last, self.expectations, self.run.at, off)
        return found if found is not None and self._any_record() else None

    def _any_record(self) -> bool:
        there = sa.select(sa.exists().select_from(self.records.table))
        try:
            with self.view.savepoint(), self.view.engine.connect() as conn:
                return bool(conn.scalar(there))
        except SQLAlchemyError:  # no right to read it: that is said where it is counted
            return False

    def narrowed(self, rows: int, stage: register.Stage) -> scope.Narrowed | Message:
        """The records to look at, or why all rules look at all records.

        Args:
            rows: of the collection.
            stage: gets the keys of records that are gone, as looked at.
        """
        most = min(int(rows * scope.MOST_CHANGED), scope.MOST_KEYS)
        looking = scope.Scope(self.view.engine, self.records, self.types, most)
        mark, expectations = self.last.mark, self.expectations
        again = [one.id for one in expectations if scope.may_mend_unchanged(one)]
        place = (self.records.database.name, self.records.collection.name)
        with self.conn.begin():
            if register.names_by_digest(self.conn, *place):
                return _("the register names records of it by digests, which cannot be looked up")
            limit = 2 * most + 1
            broken = register.open_keys_of(self.conn, *place, again, limit)
        many = _(
            "more than {most} records changed, or may have become good",
            most=most,
        )
        if sum(len(one) for one in broken.values()) == limit:
            return many
        keys = {rule: [tuple(register.key_of(one)) for one in broken[rule]] for rule in broken}
        try:
            with self.view.savepoint():
                always = scope.lists_changed(self.view.engine, self.records, expectations, mark)
                always |= {one.id for one in expectations if scope.looks_at_all(one)}
                narrowed = looking.narrowed(expectations, mark, self.run.at, keys)
                if narrowed is None:
                    return many
                self._notice_gone(looking, stage)
        except SQLAlchemyError:  # a column was dropped or retyped: its own rule will say so
            code = self.view.first_failure
            return _("PostgreSQL does not say which records changed (SQLSTATE {code})", code=code)
        return replace(narrowed, always=frozenset(always))

    def _notice_gone(self, looking: scope.Scope, stage: register.Stage) -> None:
        """Count records of the register that are no longer there as looked at."""
        if self.deleted == 0 and looking.keys_are_written_alike:
            return
        with self.run.state.connect() as conn:
            place = (self.records.database.name, self.records.collection.name)
            opened = register.open_keys(conn, *place)
            while some := list(islice(opened, register.AT_ONCE)):
                gone = looking.gone([tuple(register.key_of(one)) for one in some])
                stage.looked_at(register.key_text(one) for one in gone)


def usual(
    view: Snapshot,
    conn: Connection,
    records: Records,
    table: LiveTable,
    expectations: Sequence[Expectation],
    run: Run,
    mark: marks.Mark | None,
) -> Usual | Message:
    """The usual run of a collection, or why all records have to be looked at.

    Args:
        view: the snapshot that is checked.
        conn: to the state database, in no transaction.
        records: of the collection.
        table: as it is now.
        expectations: of the collection.
        run: the run that checks.
        mark: of this run.
    """
    if run.full:
        return _("a full check was asked for")
    if not table.primary_key:  # one that only the data map knows may be null or repeat itself
        return _("PostgreSQL knows no primary key of it")
    types = [table.columns[one].type for one in records.key]
    if any(one.endswith("[]") for one in types):
        return _("its primary key holds a list")
    if tells_a_person(records.collection, records.key):
        return _("its primary key is personal data, which the register does not keep")
    if mark is None:
        return _(
            "PostgreSQL does not say what was written to it, or to what it is held against; "
            "docs/quality.md names the tables of which and the rights with which it does"
        )
    place = (records.database.name, records.collection.name)
    with conn.begin():
        last = history.last_check(conn, *place, expectations, run.at)
    if isinstance(last, Message):
        return last
    if not marks.usable(last.mark, mark):
        return _(
            "the table, or one that it is held against, was rewritten, altered, emptied, restored, "
            "or has fewer or more values"
        )
    deleted = mark.deleted_since(last.mark)
    return Usual(view, conn, records, types, expectations, run, last, deleted)
