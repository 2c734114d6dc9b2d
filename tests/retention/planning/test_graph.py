"""Tests on random schemas that a run deletes the expected records and no others.

A calculation with sets determines the expected records.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from tests.retention.retention_schema import OVER, YOUNG, retention_schema, rule

ACTIONS = ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "detached"]
NULLED = ("SET NULL", "detached")
COLUMNS = {  # of a foreign key: referenced column, and type of its own column
    "number": {"id": "bigint"},
    "text": {"code": "text"},
    "pair": {"code": "text", "id": "int"},
}
EXAMPLES = int(os.environ.get("TEST_GRAPHS", "10"))
Row = tuple[int, int]  # table and number


@dataclass(frozen=True)
class Schema:
    """Tables with their rows, and foreign keys between the tables.

    Attributes:
        kinds: type of each table. Its record class deletes or keeps records, it has no record
            class, or it is not in the data map.
        keys: for each foreign key: child, parent, effect on the child, and referenced columns.
        rows: for each table: whether each row is expired, and whether it is on hold.
        links: for each foreign key: index of a row of the child -> index of the referenced row.
    """

    kinds: tuple[str, ...]
    keys: tuple[tuple[int, int, str, str], ...]
    rows: tuple[tuple[tuple[bool, bool], ...], ...]
    links: tuple[dict[int, int], ...]

    def ready(self) -> set[Row]:
        """Return the expired rows that are not on hold, without regard to references."""
        return {
            (table, number)
            for table, rows in enumerate(self.rows)
            for number, (over, held) in enumerate(rows)
            if over and not held and self.kinds[table] == "delete"
        }

    def gone(self) -> set[Row]:
        """Return the rows to delete: the largest set to which no remaining row refers."""
        deleted = self.ready()
        while kept := deleted & set().union(*self.kept(deleted)):
            deleted -= kept
        return deleted

    def kept(self, gone: set[Row]) -> list[set[Row]]:
        """Return, for each foreign key, the rows that are kept because of it.

        A remaining row refers to these rows.

        Args:
            gone: rows that are deleted.
        """
        return [
            {
                (parent, target)
                for source, target in links.items()
                if (child, source) not in gone and self._keeps(child, source, action)
            }
            for (child, parent, action, _), links in zip(self.keys, self.links, strict=True)
        ]

    def unexplained(self) -> set[Row]:
        """Return the expired rows for which the count after a run should find no reason to stay.

        A reference from a mapped row is a reason to stay. But in a cycle of tables, a reference
        from a row that should be deleted is a reason only if that row has a reason of its own to
        stay.
        """
        ready = self.ready()
        explained: set[Row] = set()
        while more := {
            (parent, target)
            for (child, parent, action, _), links in zip(self.keys, self.links, strict=True)
            for source, target in links.items()
            if (child, source) != (parent, target)
            and self.kinds[child] != "unmapped"
            and self._keeps(child, source, action)
            and (
                (child, source) not in ready
                or (child, source) in explained
                or not (self._leads(child, parent) and self._leads(parent, child))
            )
        } & (ready - explained):
            explained |= more
        return ready - explained

    def _leads(self, child: int, parent: int) -> bool:
        """Return whether foreign keys that are not set to null lead from one table to another."""
        reached: set[int] = set()
        waiting = [child]
        while waiting:
            table = waiting.pop()
            for other, target, action, _ in self.keys:
                are_deleting = self.kinds[table] == self.kinds[target] == "delete"
                if (
                    other == table
                    and are_deleting
                    and action not in NULLED
                    and target not in reached
                ):
                    reached.add(target)
                    waiting.append(target)
        return parent in reached

    def _keeps(self, child: int, source: int, action: str) -> bool:
        kind, held = self.kinds[child], self.rows[child][source][1]
        nulled = action in NULLED
        return not nulled or kind == "unmapped" or (held and kind in ("delete", "keep"))

    def statements(self) -> str:
        statements = [
            f"CREATE TABLE t{table} (id int PRIMARY KEY, at date, held text, code text UNIQUE, "
            "UNIQUE (id, code));"
            for table in range(len(self.rows))
        ]
        for table, rows in enumerate(self.rows):
            for number, (over, held) in enumerate(rows):
                mark = "'held'" if held else "NULL"
                statements.append(
                    f"INSERT INTO t{table} VALUES ({number}, '{OVER if over else YOUNG}', {mark}, "
                    f"'c{number}');"
                )
        for at, (child, parent, action, kind) in enumerate(self.keys):
            effect = "NO ACTION" if action == "detached" else action
            columns = {f"k{at}_{target}": own for target, own in COLUMNS[kind].items()}
            statements += [
                f"ALTER TABLE t{child} ADD {name} {own};" for name, own in columns.items()
            ]
            statements.append(
                f"ALTER TABLE t{child} ADD CONSTRAINT k{at} FOREIGN KEY ({', '.join(columns)}) "
                f"REFERENCES t{parent} ({', '.join(COLUMNS[kind])}) ON DELETE {effect};"
            )
            for source, target in self.links[at].items():
                values = {"id": str(target), "code": f"'c{target}'"}
                changes = [f"k{at}_{name} = {values[name]}" for name in COLUMNS[kind]]
                statements.append(f"UPDATE t{child} SET {', '.join(changes)} WHERE id = {source};")
        return "\n".join(statements)

    def rules(self) -> list[Any]:
        rules = []
        for table, kind in enumerate(self.kinds):
            if kind not in ("delete", "keep"):
                continue
            detach = [
                f"t{child}.k{at}_{column}"
                for at, (child, parent, action, target) in enumerate(self.keys)
                if parent == table and action == "detached" and self.kinds[child] != "unmapped"
                for column in COLUMNS[target]
            ]
            # The column is unqualified, although other tables have a column of the same name.
            more = {"detach": detach, "where": "id >= 0"} if kind == "delete" else {}
            rules.append(rule(f"t{table}", kind, keys={"subject": "t.held"}, **more))
        return rules


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    count = draw(st.integers(1, 4))
    kinds = [
        draw(st.sampled_from(["delete"] * 6 + ["keep", "none", "unmapped"])) for _ in range(count)
    ]
    kinds[0] = "delete"
    flags = st.tuples(
        st.sampled_from([True, True, True, False]), st.sampled_from([False] * 7 + [True])
    )
    rows = [tuple(draw(st.lists(flags, max_size=6))) for _ in range(count)]
    table = st.integers(0, count - 1)
    actions, targets = st.sampled_from(ACTIONS), st.sampled_from(sorted(COLUMNS))
    keys = tuple(draw(st.lists(st.tuples(table, table, actions, targets), max_size=6)))
    links = []
    for child, parent, _action, _target in keys:
        few = st.nothing() if not rows[child] or not rows[parent] else st.tuples(
            st.integers(0, len(rows[child]) - 1), st.integers(0, len(rows[parent]) - 1)
        )  # fmt: skip
        links.append(dict(draw(st.lists(few, max_size=6))) if rows[child] and rows[parent] else {})
    return Schema(tuple(kinds), keys, tuple(rows), tuple(links))


PLAIN = (True, False)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(schemas())
@example(  # an unexpired record keeps one of two expired records
    Schema(
        ("delete", "delete"),
        ((1, 0, "NO ACTION", "number"),),
        ((PLAIN, PLAIN), ((False, False), PLAIN)),
        ({0: 0, 1: 1},),
    )
)
@example(  # two cycles that share a record, and a chain that refers to a record of one cycle
    Schema(
        ("delete", "delete", "delete"),
        (
            (0, 1, "NO ACTION", "number"),
            (1, 0, "RESTRICT", "pair"),
            (2, 0, "CASCADE", "text"),
            (1, 1, "NO ACTION", "number"),
        ),
        ((PLAIN,) * 4, (PLAIN,) * 4, (PLAIN, (False, False))),
        ({0: 0, 1: 1, 2: 2}, {0: 1, 1: 0, 2: 2, 3: 3}, {0: 0, 1: 3}, {2: 3}),
    )
)
def test_run_on_random_tables_deletes_all_expired_records_to_which_no_remaining_record_refers(
    postgres: EmbeddedPostgres, schema: Schema
) -> None:
    """Count, plan, ledger and tables agree.

    After the run, each reference leads to an existing record.
    """
    with retention_schema(postgres, schema.statements()) as target:
        target.mapped = {
            f"t{at}": f"t{at}" for at, kind in enumerate(schema.kinds) if kind != "unmapped"
        }
        target.rules = schema.rules()
        target.hold(HoldKind.SUBJECT, "held")
        gone = schema.gone()
        expected = {
            f"t{at}": sum(table == at for table, _ in gone) for at in {table for table, _ in gone}
        }
        left, _orphans = target.left()
        unexplained = schema.unexplained()
        for each in left:
            table = int(each.name.removeprefix("t"))
            ready = sum(row[0] == table for row in schema.ready())
            alone = sum(row[0] == table for row in unexplained)
            over = sum(is_over for is_over, _held in schema.rows[table])
            assert (each.held, each.referred, each.unexplained) == (
                over - ready,
                ready - alone,
                alone,
            )
        plan = target.plan()
        assert {each.name: each.to_delete for each in plan.classes if each.to_delete} == expected
        kept = [rows & schema.ready() for rows in schema.kept(gone)]
        assert {
            each.constraint: each.records
            for planned in plan.classes
            for each in planned.referred_by
        } == {f"k{at}": len(rows) for at, rows in enumerate(kept) if rows}
        counts = target.execute(plan)
        assert counts.done == target.erased() == expected
        for table, rows in enumerate(schema.rows):
            staying = {number for number in range(len(rows)) if (table, number) not in gone}
            assert target.keys(f"t{table}") == staying
        for at, (child, parent, action, kind) in enumerate(schema.keys):
            column = f"k{at}_{'code' if kind == 'text' else 'id'}"
            links = {
                (source, target)
                for source, target in schema.links[at].items()
                if (child, source) not in gone
                and not (action in NULLED and (parent, target) in gone)
            }
            remaining = target.keys(f"t{child} WHERE {column} IS NOT NULL", f"id, {column}::text")
            mark = "c" if kind == "text" else ""
            assert remaining == {(source, f"{mark}{number}") for source, number in links}
        left_over, orphans = target.left()
        assert orphans == 0
        assert not any(each.unexplained for each in left_over) or "unmapped" in schema.kinds
