"""Test that figures in the reports of backups and restore drills match their labels."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.backup import offsite_report
from include.backup.drill_report import PastDrill
from include.backup.manifest import Manifest, TableRecord
from include.backup.prune import Reason
from include.evidence.model import Metric, Outcome, StepRecord
from include.messages import _, listed, verbatim
from include.reports.conclusion import Conclusion
from include.reports.model import Code, Section, Table, TrendChart
from tests.backup.report_records import (
    PRUNED,
    backup_records,
    conclude_backup,
    conclude_drill,
    drilled,
    step,
)
from tests.backup.support import Taken, mapped
from tests.support.holders import NOW

PASS, ATTENTION, FAIL = Outcome.PASS, Outcome.ATTENTION, Outcome.FAIL
HOUR = timedelta(hours=1)
TWO = [mapped(), mapped(name="billing")]


def facts(conclusion: Conclusion) -> dict[str, tuple[Any, ...]]:
    return {
        fact.label.text: (fact.value, fact.unit, fact.status, fact.note)
        for fact in conclusion.facts
    }


def section(conclusion: Conclusion, heading: str) -> Section:
    return next(part for part in conclusion.sections if part.heading.text == heading)


def table(part: Section) -> Table:
    return next(block for block in part.blocks if isinstance(block, Table))


def trend(part: Section) -> TrendChart:
    return next(block for block in part.blocks if isinstance(block, TrendChart))


def named(conclusion: Conclusion, heading: str) -> dict[str, Any]:
    """Return the rows of the table in a section, as a mapping from the first to the second cell."""
    rows = table(section(conclusion, heading)).rows
    return {getattr(name, "text", str(name)): value for name, value in rows}


@pytest.fixture
def manifests(taken: Taken) -> dict[str, Manifest]:
    """Return the manifests of two databases. The second database is smaller and one hour older."""
    first = taken.manifest
    other = {
        "id": "20261101T000000Z-aaaaaa",
        "database": "billing",
        "taken_at": first.taken_at - HOUR,
        "tables": (TableRecord(schema_name="a", name="b", rows=7, bytes=70, sha256="c" * 64),),
        "dump": first.dump.model_copy(update={"size": 1000}),
    }
    return {"courier": first, "billing": first.model_copy(update=other)}


def preflight(kind: str = "s3") -> StepRecord:
    sites = {"store": "shanghai", "database courier": "beijing"}
    return step("preflight", "", store="s3://x", store_kind=kind, sites=sites)


def backed_up(manifests: dict[str, Manifest], first: StepRecord) -> Conclusion:
    billing = step("backup", "billing", ATTENTION, silent=True, seconds=2.5)
    records = [*backup_records(preflight=first), billing, step("prune", "billing", **PRUNED)]
    return conclude_backup(records, TWO, manifests, requested=["courier", "billing"])


def test_backup_report_has_figures_for_databases_rows_size_store_and_sites(
    manifests: dict[str, Manifest],
) -> None:
    """The facts are the number of databases, oldest snapshot, sums, kind of store, and sites."""
    courier = manifests["courier"]
    assert facts(backed_up(manifests, preflight())) == {
        "Databases backed up": (_("{count} of {total}", count=2, total=2), "", PASS, None),
        "Data as of": (courier.taken_at - HOUR, "", None, None),
        "Rows": (courier.rows + 7, "rows", None, None),
        "Encrypted size": (courier.dump.size + 1000, "bytes", None, None),
        "Off-site store": (_("S3 bucket"), "", PASS, None),
        "Sites of the database and of the backups, as declared": (
            _(
                "database at {primary}; backups at {store}",
                primary=listed([verbatim("beijing")]),
                store="shanghai",
            ),
            "",
            None,
            None,
        ),
    }


def test_backup_report_states_that_the_store_is_a_directory_or_that_sites_are_undeclared(
    manifests: dict[str, Manifest],
) -> None:
    """If the preflight did not run, both facts are reported as not measured."""
    shown = facts(backed_up(manifests, preflight("directory")))
    assert shown["Off-site store"][0] == _("directory")
    undeclared = facts(backed_up(manifests, step("preflight", "", store="s3://x")))
    assert undeclared["Sites of the database and of the backups, as declared"][0] == _(
        "not declared"
    )
    stopped = facts(backed_up(manifests, step("preflight", "", FAIL)))
    assert (
        stopped["Off-site store"]
        == stopped["Sites of the database and of the backups, as declared"]
        == (None, "", None, None)
    )


def test_backup_report_lists_restore_points_tables_and_recipients(
    manifests: dict[str, Manifest],
) -> None:
    """Each row has the figures of its own database, and the largest tables come first."""
    conclusion = backed_up(manifests, preflight())
    courier, billing = manifests["courier"], manifests["billing"]
    assert table(section(conclusion, "Restore points of this run")).rows == [
        [
            verbatim("Courier"),
            courier.id,
            courier.taken_at,
            courier.rows,
            courier.dump.size,
            1.5,
            PASS,
        ],
        [verbatim("Billing"), billing.id, billing.taken_at, 7, 1000, 2.5, ATTENTION],
    ]
    contents = table(section(conclusion, "Content of {database}"))
    assert len(courier.tables) > len(contents.rows) == offsite_report.MOST_TABLES
    largest = sorted(courier.tables, key=lambda record: (-record.rows, record.label))
    assert contents.rows == [
        [record.label, record.rows, record.bytes, record.sha256[:12]]
        for record in largest[: offsite_report.MOST_TABLES]
    ]
    assert contents.caption.values == {"shown": len(contents.rows), "total": len(courier.tables)}
    holders = table(section(conclusion, "Recipients who can decrypt these backups")).rows
    assert [row[0] for row in holders] == [_("operations"), "offline"]
    address = section(conclusion, "Restore points of this run").blocks[-1]
    assert isinstance(address, Code)
    assert address.lines == ["s3://x"]


def test_backup_report_gives_the_reason_of_each_pruning_decision(
    manifests: dict[str, Manifest],
) -> None:
    """If the store refused to delete a restore point, the reason is its lock."""
    refused = step("prune", **PRUNED, refused=["p7"])
    conclusion = conclude_backup(
        backup_records(preflight=preflight(), prune=refused),
        [mapped()],
        manifests,
        requested=["courier"],
    )
    part = section(conclusion, "Restore points of {database}")
    kept = {"p1": "floor", "p2": "legal hold", "p3": "locked", "p4": "daily", "p7": "locked"}
    removed = {"p5": "expired", "p6": "superseded"}
    assert table(part).rows == [
        *[[point, _("kept"), Reason(reason).message] for point, reason in kept.items()],
        *[[point, _("removed"), Reason(reason).message] for point, reason in removed.items()],
    ]
    assert [(point.at, point.value) for point in trend(part).points] == [(NOW, 5)]


def figure(name: str, value: float | None, target: float | None) -> Metric:
    return Metric(
        name=f"drill.{name}_seconds", value=value, unit="seconds", target=target, subject="x"
    )


def with_times(part: str, *figures: Metric) -> StepRecord:
    record = step("drill", part, rows=1)
    record.metrics.extend(figures)
    return record


@pytest.mark.parametrize(
    ("other", "late", "shown", "status", "hours"),
    [
        ((1.0, 7200.0), FAIL, 1.0, PASS, 2.0),  # 1 s of 2 h is a larger share than 1 s of 4 h
        ((9000.0, 7200.0), FAIL, 9000.0, FAIL, 2.0),
        ((7200.0, 7200.0), FAIL, 7200.0, PASS, 2.0),  # at its target is within it
        ((None, 7200.0), FAIL, 1.0, PASS, 4.0),
    ],
)
def test_drill_report_shows_the_database_whose_time_is_closest_to_its_target(
    other: tuple[float | None, float], late: Outcome, shown: float, status: Outcome, hours: float
) -> None:
    """Two databases have different targets. A time that equals its target meets it."""
    records = [
        with_times("courier", figure("rto", 1.0, 14400), figure("rpo", 1.0, 14400)),
        with_times("billing", figure("rto", *other), figure("rpo", *other)),
    ]
    shown_facts = facts(conclude_drill(records, TWO, {}))
    note = _("target: at most {hours} h", hours=hours)
    assert shown_facts["Longest restore"] == (shown, "seconds", status, note)
    age = shown_facts["Age of the newest restore point"]
    assert age == (shown, "seconds", ATTENTION if status is FAIL else PASS, note)


def test_drill_report_contains_sum_of_compared_rows_of_all_drilled_databases() -> None:
    """Only drilled databases are summed. Without a drill, the figure is not measured."""
    records = [*drilled(), step("drill", "billing", rows=4)]
    assert facts(conclude_drill(records, TWO, {}))["Rows compared"][0] == 13
    assert facts(conclude_drill(drilled(), TWO, {}))["Rows compared"][0] == 9
    assert facts(conclude_drill([], TWO, {}))["Rows compared"][0] is None


@pytest.mark.parametrize(
    ("newest", "cell"),
    [
        (NOW.isoformat(), NOW),
        ("none", _("the database has no record")),
        (None, _("not checked: the data map names no time column")),
    ],
    ids=["newest", "no record", "no column"],
)
@pytest.mark.parametrize(
    ("left_out", "names"),
    [(["a", "b"], listed([verbatim("a"), verbatim("b")])), ([], _("none"))],
)
def test_drill_report_has_a_row_for_each_check_of_the_drill(
    newest: str | None, cell: object, left_out: list[str], names: object
) -> None:
    """Each figure of the drill's step record has its own row."""
    record = step(
        "drill",
        restore_point="p1",
        compared=2,
        rows=3,
        foreign_keys=4,
        left_out=left_out,
        newest=newest,
        erasures=5,
        replayed=6,
        remasked=7,
        remaining=8,
        views_refreshed=9,
        holding={"a": 10, "b": 11},
    )
    history = {"courier": [PastDrill(NOW, ATTENTION, 4.0)]}
    conclusion = conclude_drill(drilled(drill=record), [mapped()], history)
    part = conclusion.sections[0]
    assert part.heading.values == {"database": verbatim("Courier"), "point": "p1"}
    assert named(conclusion, part.heading.text) == {
        "A backup with one changed byte is refused": _("yes"),
        "A truncated backup is refused": _("yes"),
        "A wrong key is refused": _("yes"),
        "Tables whose content was compared": 2,
        "Rows restored": 3,
        "Foreign keys checked row by row": 4,
        "Database objects in the backup that were not restored": names,
        "Newest record in the restored database": cell,
        "Erased or masked records listed in the erasure ledger": 5,
        "Erased records that were found in the backup and erased again": 6,
        "Masked records that were found unmasked in the backup and masked again": 7,
        "Erased or masked records still present after they were erased or masked again": 8,
        "Materialized views refreshed after records were erased again": 9,
        "Rows of other tables and views that still contain keys of erased records": 21,
    }
    (point,) = trend(part).points
    assert (point.at, point.value, point.status) == (NOW, 4.0, ATTENTION)


def test_drill_report_without_drill_has_empty_figures() -> None:
    """The heading names the chosen restore point."""
    conclusion = conclude_drill([step("choose", restore_point="p9")], [mapped()], {})
    part = conclusion.sections[0]
    assert part.heading.values["point"] == "p9"
    assert set(named(conclusion, part.heading.text).values()) == {None}
    nothing = conclude_drill([], [mapped()], {}).sections[0]
    assert nothing.heading.values["point"] == "—"


@pytest.mark.parametrize(
    ("data", "value", "status", "entries"),
    [
        ({"remaining": 0}, 0, PASS, 3),
        ({"remaining": 2}, 2, FAIL, 3),
        ({"holding": {"a": 1, "b": 4}}, 5, FAIL, 3),
        ({"remaining": 0, "not_looked_for": 1}, None, FAIL, 1),
        ({"remaining": 2, "not_looked_for": 1}, 2, FAIL, 2),
    ],
)
def test_drill_report_contains_number_of_erased_records_that_the_restore_brought_back(
    data: dict[str, Any], value: int | None, status: Outcome, entries: int
) -> None:
    """Erased records, and rows that contain their keys, are counted.

    If records of the ledger could not be searched for, the run fails.
    """
    record = step("drill", rows=1, erasures=3, **data)
    fact = facts(conclude_drill([record], [mapped()], {}))[
        "Erased records that the restore brought back"
    ]
    assert (fact[0], fact[2], fact[3].values) == (value, status, {"count": entries})


def test_drill_report_has_no_number_of_erased_records_if_one_database_was_not_measured() -> None:
    courier = step("drill", erasures=3, remaining=0)
    conclusion = conclude_drill([courier, step("drill", "billing", rows=1)], TWO, {})
    assert facts(conclusion)["Erased records that the restore brought back"] == (
        None,
        "",
        None,
        None,
    )
