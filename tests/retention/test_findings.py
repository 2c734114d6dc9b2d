"""Findings of a run that other tests do not bring about."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.evidence.model import Outcome, StepRecord
from include.holds.records import StoredRestorePoint
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.policy.datamap import MappedField
from include.retention.execution import cycles
from include.retention.planning.approval import may_be_approved
from tests.retention import step_records as steps
from tests.retention.rig import OLD, YOUNG, Rig, disposition, new_rig, rule
from tests.support.registers import UNGUARDED, tamper


def found(record: StepRecord) -> dict[str, tuple[Outcome, str]]:
    return {one.code: (one.severity, one.subject) for one in record.findings}


def test_a_hold_whose_review_is_past_is_named(rig: Rig) -> None:
    """A hold never ends by itself; somebody has to be asked."""
    rig.hold(HoldKind.SUBJECT, "p9")
    assert "retention.hold_review_due" not in found(rig.plan("r1"))
    rig.state_sql(f"{UNGUARDED}; UPDATE legal_hold SET review_on = review_on - 100")
    severity, _subject = found(rig.plan("r2"))["retention.hold_review_due"]
    assert severity is Outcome.ATTENTION


def test_hold_whose_value_no_key_can_have_is_a_finding(rig: Rig) -> None:
    """The pack changed since it was placed, or another database is meant: it is never silent."""
    code = "retention.hold_keeps_nothing"
    kept = rig.hold(HoldKind.SUBJECT, "p9")
    assert code not in found(rig.plan("r1"))
    keyed = rig.but(rules=[rule("note", keys={"subject": "t.id"})])
    assert found(keyed.plan("r2"))[code] == (Outcome.ATTENTION, f"hold {kept.id}")
    rig.release(kept.id)
    own = rig.hold(HoldKind.SUBJECT, "courier/p9")
    assert found(keyed.plan("r3"))[code] == (Outcome.FAIL, f"hold {own.id}")
    keyless = rig.but(rules=[rule("note", keys={})])
    assert found(keyless.plan("r4"))[code] == (Outcome.FAIL, f"hold {own.id}")
    assert code not in found(rig.plan("r5"))


def test_a_large_plan_that_nobody_may_approve_fails(rig: Rig) -> None:
    """It is said when the plan is made, and nothing of the class goes."""
    nobody = rig.but(rules_of_disposition=disposition(limit={"records": 0}, approval={}))
    nobody.insert("note", id=1, at=OLD)
    planned = nobody.plan()
    plan = steps.planned(nobody.in_run(), planned)
    assert not may_be_approved(nobody.in_run(), plan)
    assert may_be_approved(rig.in_run(), plan)
    assert found(planned)["retention.nobody_to_ask"][0] is Outcome.FAIL
    assert planned.data["request"] is None
    assert nobody.execute(planned).data["done"] == {}


def test_nothing_expiring_where_something_always_does_is_noted(rig: Rig) -> None:
    """The clock may no longer be filled in."""
    for number in range(3):
        rig.insert("note", id=number, at=OLD)
        assert "retention.nothing_expires" not in found(rig.run(f"r{number}")[0])
    assert found(rig.plan("r4"))["retention.nothing_expires"] == (Outcome.ATTENTION, "note")


def test_a_time_of_day_that_is_over_stops_the_execution(rig: Rig) -> None:
    """What is left is red, and the reason stands beside it."""
    now = rig.clock.now()
    begins, ends = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (2, 3))
    closed = rig.but(rules_of_disposition=disposition(window={"begins": begins, "ends": ends}))
    closed.insert("note", id=1, at=OLD)
    _planned, executed, counted = closed.run()
    assert found(executed)["retention.stopped"][0] is Outcome.ATTENTION
    assert executed.data["stopped"] == "window"
    assert found(counted)["retention.left"] == (Outcome.FAIL, "note")


def test_records_that_refer_to_nothing_are_found(rig: Rig) -> None:
    """PostgreSQL itself would refuse; somebody deleted around the foreign key."""
    rig.insert("scan", id=1, at=YOUNG)
    rig.insert("note", id=1, scan=1, at=YOUNG)
    planned = rig.plan()
    executed = rig.execute(planned)
    assert "retention.orphans" not in found(rig.verify(planned, executed))
    rig.sql("SET session_replication_role = 'replica'; DELETE FROM scan")
    severity, subject = found(rig.verify(planned, executed))["retention.orphans"]
    assert severity is Outcome.FAIL
    assert "note" in subject


def test_records_that_refer_to_nothing_since_before_their_key_are_no_failure(
    postgres: EmbeddedPostgres,
) -> None:
    """The key is NOT VALID: PostgreSQL has never said that they refer to anything."""
    with new_rig(postgres) as rig:
        rig.insert("scan", id=1, at=YOUNG)
        rig.insert("note", id=1, scan=1, at=YOUNG)
        name = rig.sql(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'note'::regclass AND contype = 'f'"
        )[0][0]
        rig.sql(
            f"ALTER TABLE note DROP CONSTRAINT {name}; DELETE FROM scan; ALTER TABLE note ADD "
            f"CONSTRAINT {name} FOREIGN KEY (scan) REFERENCES scan ON DELETE SET NULL NOT VALID"
        )
        planned = rig.plan()
        counted = found(rig.verify(planned, rig.execute(planned)))
    assert counted["retention.orphans"] == (Outcome.ATTENTION, name)


def test_a_backup_taken_while_the_last_batch_went_on_is_listed(rig: Rig) -> None:
    """Its snapshot is younger than the ledger's entry, and still has the records."""
    rig.insert("note", id=1, at=OLD)
    planned = rig.plan()
    executed = rig.execute(planned)
    begun = tamper(
        rig.state_source,
        "UPDATE erasure_batch SET erased_at = erased_at - interval '1 hour' RETURNING erased_at",
    )[0][0]
    meanwhile, days = begun + timedelta(minutes=59), timedelta(days=30)
    copies = [
        StoredRestorePoint("within", meanwhile, meanwhile + days),
        StoredRestorePoint("later", begun + days, begun + days),
    ]
    listed = steps.verify(rig.in_run(), planned, executed, copies).data["copies"]
    assert [one["id"] for one in listed] == ["within"]


def test_more_than_was_planned_is_an_incident(rig: Rig) -> None:
    """Two executions at once, or a ledger that somebody else wrote to."""
    rig.insert("note", id=1, at=OLD)
    planned = rig.plan()
    executed = rig.execute(planned)
    tamper(rig.state_source, "UPDATE erasure_batch SET records = 3")
    codes = found(rig.verify(planned, executed))
    assert codes["retention.beyond_plan"] == (Outcome.FAIL, "note")


def test_a_backup_with_a_refused_manifest_may_hold_what_was_erased(rig: Rig) -> None:
    """Nobody knows when it was taken: it is listed, and never "none does"."""
    rig.insert("note", id=1, at=OLD)
    planned = rig.plan()
    executed = rig.execute(planned)
    counted = steps.verify(
        rig.in_run(), planned, executed, [StoredRestorePoint("courier/20211001")]
    )
    assert found(counted)["retention.backups_refused"][0] is Outcome.ATTENTION
    [listed] = counted.data["copies"]
    assert (listed["id"], listed["taken_at"]) == ("courier/20211001", None)


def test_a_hold_released_since_the_plan_is_no_failure(rig: Rig) -> None:
    """Its records are the next plan's; nobody need look."""
    rig.insert("note", id=1, at=OLD, who="p1")
    hold = rig.hold(HoldKind.CLASS, "note")
    planned = rig.plan()
    executed = rig.execute(planned)
    rig.release(hold.id)
    counted = rig.verify(planned, executed)
    assert (found(counted), counted.data["unexplained"]) == ({}, 0)
    assert rig.run("r2")[1].data["done"] == {"note": 1}


def test_a_clock_at_the_end_of_time_is_not_over(rig: Rig) -> None:
    """No period can be added to it, neither by the plan nor by the count afterwards."""
    rig.sql("INSERT INTO note (id, at) VALUES (1, '294276-12-31')")
    rig.insert("note", id=2, at=OLD)
    _planned, executed, counted = rig.run()
    assert (executed.data["done"], found(counted)) == ({"note": 1}, {})


def test_a_circle_too_large_for_one_transaction_is_named(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays, and the step says why; `test_section.py` has the certificate's words."""
    monkeypatch.setattr(cycles, "MOST", 1)
    rig.insert("ring_a", id=1, b=None, at=OLD)
    rig.insert("ring_b", id=1, a=1, at=OLD)
    rig.sql("UPDATE ring_a SET b = 1")
    _planned, executed, counted = rig.run()
    assert found(executed)["retention.knot"][0] is Outcome.FAIL
    assert (executed.data["done"], executed.data["knots"]) == ({}, {"ring_a": 1, "ring_b": 1})
    assert found(counted)["retention.left"][0] is Outcome.FAIL


def test_a_chain_that_got_short_enough_is_no_circle(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too long at the first try, and all of it goes at a later one."""
    monkeypatch.setattr(cycles, "MOST", 20)
    for number in range(30):
        rig.insert("node", id=number, up=number - 1 if number else None, at=OLD)
    executed = rig.execute(rig.plan())
    assert executed.data["done"] == {"node": 30}
    assert (found(executed), executed.data["knots"]) == ({}, {})


def test_copies_of_erased_personal_data_without_a_record_class_are_a_finding(rig: Rig) -> None:
    """A table with a class is looked after, and one without personal data holds nobody's."""
    trigger = """
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO tag (id, at) VALUES (OLD.id, OLD.at); RETURN OLD; END$$;
        CREATE TRIGGER react AFTER DELETE ON note FOR EACH ROW EXECUTE FUNCTION react();
        """
    note = [one for one in rig.rules if one.collection == "note"]
    kept = [*note, *(one for one in rig.rules if one.collection == "tag")]
    who = MappedField(name="who", categories=("user.unique_id",))
    tag = rig.database.collections["tag"]
    tag = tag.model_copy(update={"fields": {**tag.fields, "who": who}})
    personal = rig.database.model_copy(
        update={"collections": {**rig.database.collections, "tag": tag}}
    )
    rig.sql(trigger)
    try:
        copies = []
        for number, other in enumerate(
            [
                rig.but(rules=note, database=personal),
                rig.but(rules=kept, database=personal),
                rig.but(rules=note),
            ]
        ):
            other.insert("note", id=number, at=OLD)
            run = f"r{number}"
            executed = other.execute(other.plan(run), run)
            assert executed.data["inserted"] == {"public.tag": 1}
            copies.append(found(executed).get("retention.copied"))
    finally:
        rig.sql("DROP FUNCTION react CASCADE")
    assert copies == [(Outcome.ATTENTION, "tag"), None, None]


def test_side_effect_of_a_trigger_names_table_figures_and_trigger(rig: Rig) -> None:
    """The record stays; the step's finding says what the trigger did, and which one it was."""
    rig.insert("note", id=1, at=OLD)
    rig.insert("tag", id=1, at=OLD, who="p1")
    rig.sql(
        """
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN DELETE FROM tag; RETURN OLD; END$$;
        CREATE TRIGGER react AFTER DELETE ON note FOR EACH ROW EXECUTE FUNCTION react();
        """
    )
    try:
        rig.hold(HoldKind.SUBJECT, "p1")
        planned, executed, counted = rig.run()
    finally:
        rig.sql("DROP FUNCTION react CASCADE")
    [effect] = [one for one in executed.findings if one.code == "retention.side_effect"]
    assert (effect.severity, effect.subject) == (Outcome.FAIL, "note")
    assert effect.message.values == {"count": 1, "deleted": 1, "updated": 0, "table": "public.tag"}
    assert effect.action.values == {"names": "react (public.note, public.react)"}
    assert "retention.refused" not in found(executed)
    assert rig.keys_in("tag") == {("1",)}
    assert found(counted)["retention.left"] == (Outcome.FAIL, "note")
    [reaction] = planned.data["reactions"]
    assert (reaction["table"], reaction["name"]) == ("public.note", "react")
