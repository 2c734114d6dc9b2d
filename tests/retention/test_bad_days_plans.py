"""Between a plan and its execution: what changes, what is tampered with, who answers."""

from __future__ import annotations

from typing import Any

import pytest

from include.approvals.registry import REJECT
from include.erasure.ledger import ErasureKeys
from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ControlFailed, UsageError
from tests.retention.rig import (
    EVERYTHING_WAITS,
    OLD,
    ROTATED,
    YOUNG,
    Rig,
    disposition,
    fill,
    mapped,
    new_rig,
    rule,
)


class Gone(Exception):
    """The process goes away."""


WAITING = disposition(limit=EVERYTHING_WAITS)


def codes(record: StepRecord) -> list[str]:
    return [one.code for one in record.findings]


def nodes(rig: Rig, count: int = 3, **more: Any) -> None:
    for number in range(count):
        rig.insert("node", **{"id": number, "at": OLD, "who": f"p{number}"} | more)


def test_a_record_that_came_to_life_since_the_plan_stays(rig: Rig) -> None:
    """Its clock moved on after the plan: it is not over any more, the others go."""
    nodes(rig)
    planned = rig.plan()
    rig.sql("UPDATE node SET at = %s WHERE id = 1", [YOUNG])
    assert rig.execute(planned).data["done"] == {"node": 2}
    assert rig.keys_in("node") == {("1",)}


def test_a_record_that_came_after_the_plan_waits_for_the_next(rig: Rig) -> None:
    """As many go as were planned, of whichever class they are; the rest is told, and no fault."""
    nodes(rig)
    rig.insert("note", id=1, at=OLD)
    planned = rig.plan()
    nodes(rig, 1, id=9)
    executed = rig.execute(planned)
    assert executed.data["done"] == {"node": 3, "note": 1}
    assert executed.data["waiting"] == {"node": 1}
    assert codes(executed) == ["retention.waiting"]
    counted = rig.verify(planned, executed)
    assert (codes(counted), counted.data["unexplained"]) == ([], 0)
    assert {one["name"]: one["waiting"] for one in counted.data["left"] if one["waiting"]} == {
        "node": 1
    }
    assert rig.execute(rig.plan("r2"), "r2").data["done"] == {"node": 1}


def test_what_came_after_the_plan_explains_no_more_than_itself(rig: Rig) -> None:
    """One waits, and another is left although it was planned: that one is a finding."""
    nodes(rig)
    planned = rig.plan()
    nodes(rig, 1, id=9)
    executed = rig.execute(planned)
    nodes(rig, 1, id=10)
    counted = rig.verify(planned, executed)
    assert (codes(counted), counted.data["unexplained"]) == (["retention.left"], 1)


def test_what_a_killed_try_erased_counts_towards_the_plan(rig: Rig) -> None:
    """Of three planned one has gone and one more has come: two go, and one waits."""
    rig = rig.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(rig)
    planned = rig.plan()

    def progress(stage: str) -> None:
        if stage == "committed":
            raise Gone

    with pytest.raises(Gone):
        rig.execute(planned, progress=progress)
    nodes(rig, 1, id=9)
    executed = rig.execute(planned)
    assert executed.data["done"] == {"node": 3}
    assert executed.data["waiting"] == {"node": 1}
    assert len(rig.keys_in("node")) == 1


def test_no_more_go_than_planned_although_more_expire_meanwhile(rig: Rig) -> None:
    """Records that expire while batches run do not go beyond the number that was approved."""
    rig = rig.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(rig, 4)
    planned = rig.plan()
    more = iter(range(100, 120))

    def progress(stage: str) -> None:
        if stage == "committed":
            nodes(rig, 1, id=next(more))

    assert rig.execute(planned, progress=progress).data["done"] == {"node": 4}
    assert len(rig.keys_in("node")) == 4


@pytest.mark.parametrize(
    ("kind", "value"),
    [(HoldKind.SUBJECT, "p1"), (HoldKind.CLASS, "node"), (HoldKind.DATABASE, "courier")],
)
def test_a_hold_placed_since_the_plan_keeps(rig: Rig, kind: HoldKind, value: str) -> None:
    """The plan was approved without it, and it counts nevertheless."""
    nodes(rig)
    planned = rig.plan()
    rig.hold(kind, value)
    rig.execute(planned)
    kept = {("1",)} if kind is HoldKind.SUBJECT else {("0",), ("1",), ("2",)}
    assert rig.keys_in("node") == kept


def test_a_hold_placed_between_two_batches_keeps(rig: Rig) -> None:
    """Each batch asks anew; what had gone before has gone."""
    rig = rig.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(rig, 4)
    planned = rig.plan()
    placed = []

    def progress(stage: str) -> None:
        if stage == "committed" and not placed:
            placed.append(rig.hold(HoldKind.CLASS, "node"))

    assert rig.execute(planned, progress=progress).data["done"] == {"node": 1}
    assert len(rig.keys_in("node")) == 3


@pytest.mark.parametrize(
    ("who", "code"),
    [
        ("ana", "retention.own_request"),
        ("eve", "retention.not_entitled"),
        ("dora", "retention.own_request"),
        (None, "retention.nobody"),
    ],
)
def test_an_answer_that_may_not_count_does_not(rig: Rig, who: str | None, code: str) -> None:
    """Of the owner, of a stranger, of who started the run, of nobody: the records stay."""
    rig = rig.but(rules_of_disposition=WAITING, starter="dora")
    nodes(rig)
    planned = rig.plan()
    assert codes(rig.answer(planned, by=who)) == [code]
    executed = rig.execute(planned)
    assert executed.data["done"] == {}
    assert codes(executed) == ["retention.not_approved"]
    assert len(rig.keys_in("node")) == 3


def test_who_owns_or_starts_may_not_approve_even_if_named(rig: Rig) -> None:
    """Bo may approve in general, and started this very run."""
    rig = rig.but(rules_of_disposition=WAITING, starter="bo")
    nodes(rig)
    planned = rig.plan()
    assert codes(rig.answer(planned, by="bo")) == ["retention.own_request"]
    assert rig.execute(planned).data["done"] == {}


def test_a_rejected_plan_stays(rig: Rig) -> None:
    """And a later yes of somebody else does not turn it round."""
    rig = rig.but(rules_of_disposition=WAITING)
    nodes(rig)
    planned = rig.plan()
    assert codes(rig.answer(planned, option=REJECT)) == ["retention.rejected"]
    assert codes(rig.answer(planned, by="chen")) == ["retention.decided_before"]
    assert rig.execute(planned).data["done"] == {}


def test_a_plan_that_was_edited_after_its_approval_is_refused(rig: Rig) -> None:
    """Its file is not what the hash says."""
    rig = rig.but(rules_of_disposition=WAITING)
    nodes(rig)
    planned = rig.plan()
    rig.answer(planned)
    rig.state_sql(
        "UPDATE run_artifact SET content = convert_to(replace(convert_from(content, 'UTF8'), "
        "'\"to_delete\": 3', '\"to_delete\": 9'), 'UTF8')"
    )
    with pytest.raises(ControlFailed, match="its file changed since"):
        rig.execute(planned)
    assert len(rig.keys_in("node")) == 3


def test_an_approval_of_another_plan_is_refused(rig: Rig) -> None:
    """An earlier run's plan was approved: that approval is of other content."""
    rig = rig.but(rules_of_disposition=WAITING)
    nodes(rig)
    planned = rig.plan()
    rig.answer(planned)
    nodes(rig, 1, id=9)
    again = rig.plan("r2")
    assert again.data["sha256"] != planned.data["sha256"]
    assert rig.execute(again, "r2").data["done"] == {}
    forged = again.model_copy(update={"data": again.data | {"request": planned.data["request"]}})
    with pytest.raises(ControlFailed):
        rig.execute(forged, "r2")
    assert len(rig.keys_in("node")) == 4


def test_a_schedule_that_changed_since_the_plan_voids_it(rig: Rig) -> None:
    """Shorter period, other action, one class fewer: run again."""
    nodes(rig)
    rig = rig.but(rules=[rule("node")])
    planned = rig.plan()
    for rules in (
        [rule("node", period="P2Y")],
        [rule("node", keys={})],
        [],
        [rule("node"), rule("ring_a")],
    ):
        with pytest.raises(ControlFailed, match=r"retention\.yaml was changed"):
            rig.but(rules=rules).execute(planned)
    assert len(rig.keys_in("node")) == 3


def test_a_foreign_key_that_came_since_the_plan_voids_it(postgres: EmbeddedPostgres) -> None:
    """Whether its table is mapped or not; the next plan knows it."""
    with new_rig(postgres) as rig:
        fill(rig)
        planned = rig.plan()
        rig.sql("CREATE TABLE audit (id integer PRIMARY KEY, node integer REFERENCES node)")
        rig.sql("INSERT INTO audit VALUES (1, 2)")
        with pytest.raises(ControlFailed, match="foreign keys"):
            rig.execute(planned)
        again, executed, _counted = rig.run("r2")
        assert codes(again) == ["retention.unmapped_reference"]
        assert executed.data["done"]["node"] == 1
        assert rig.keys_in("node") == {("1",), ("2",)}


def test_a_foreign_key_that_comes_while_batches_run_is_obeyed(postgres: EmbeddedPostgres) -> None:
    """PostgreSQL refuses the record that the new key keeps; it is reported, the others go."""
    with new_rig(postgres, rules=[rule("node")], database=mapped(["node"])) as rig:
        rig = rig.but(rules_of_disposition=disposition(batch={"rows": 1}))
        nodes(rig, 4)
        planned = rig.plan()
        made = []

        def progress(stage: str) -> None:
            if stage == "committed" and not made:
                rig.sql("CREATE TABLE audit (id integer PRIMARY KEY, node integer REFERENCES node)")
                rig.sql("INSERT INTO audit SELECT 1, max(id) FROM node")
                made.append(True)

        executed = rig.execute(planned, progress=progress)
        assert executed.data["done"] == {"node": 3}
        assert executed.data["refused"] == {"node 23503": 1}
        assert rig.keys_in("node") == {("3",)}


def test_a_lost_ledger_key_keeps_everything(rig: Rig) -> None:
    """What is erased without it could not be found in a backup again: refuse, and say which."""
    fill(rig)
    planned = rig.but(keys=ROTATED).plan()
    lost = ErasureKeys({"1": b"1" * 32}, "1")
    with pytest.raises(UsageError, match=r"missing here: 2"):
        rig.but(keys=lost).execute(planned)
    assert len(rig.keys_in("node")) == 3


def test_a_lost_older_key_keeps_everything(rig: Rig) -> None:
    """Entries of earlier runs were made with it."""
    nodes(rig, 1)
    rig.run()
    nodes(rig, 3)
    only = ErasureKeys({"2": b"2" * 32}, "2")
    planned = rig.but(keys=only).plan("r2")
    with pytest.raises(UsageError, match=r"missing here: 1"):
        rig.but(keys=only).execute(planned, "r2")
    assert len(rig.keys_in("node")) == 3
