"""Steps that somebody repeats: what was asked is what is answered, and counts stay true."""

from __future__ import annotations

import pytest

from include.approvals.question import AskAgain
from include.approvals.registry import APPROVE
from include.evidence.model import Outcome
from include.services.errors import ControlFailed
from tests.retention import step_records as steps
from tests.retention.rig import AS_OF, OLD, Rig, disposition
from tests.support.registers import tamper


def test_a_plan_that_was_asked_about_stays_the_runs_plan(rig: Rig) -> None:
    """Repeating the first step while the question is open makes no other plan to be approved."""
    asking = rig.but(rules_of_disposition=disposition(limit={"records": 0}))
    asking.insert("note", id=1, at=OLD)
    first = asking.plan("r1")
    asking.insert("note", id=2, at=OLD)
    again = asking.plan("r1")
    assert again.data["sha256"] == first.data["sha256"]
    assert again.data["request"] == first.data["request"]
    assert asking.answer(again).data["decision"] == APPROVE
    executed = asking.execute(again)
    assert (executed.data["done"], executed.data["waiting"]) == ({"note": 1}, {"note": 1})
    assert asking.plan("r2").data["sha256"] != first.data["sha256"]


def test_an_answer_to_another_plan_does_not_count(rig: Rig) -> None:
    """Whatever else the run has been asked about; the next answer, to the plan's form, does."""
    asking = rig.but(rules_of_disposition=disposition(limit={"records": 0}))
    asking.insert("note", id=1, at=OLD)
    planned = asking.plan("r1")
    given = {"option": APPROVE, "reason": "", "user": "bo", "at": asking.clock.now()}
    for content in ("", f"{planned.data['request']}:{'0' * 64}"):
        with pytest.raises(AskAgain, match="not the one that the form showed"):
            steps.take(asking.in_run("r1"), planned, content=content, **given)
        assert asking.execute(planned).data["done"] == {}
    question = steps.ask(asking.in_run("r1"), planned)
    assert question is not None
    record = steps.take(
        asking.in_run("r1"), planned, **given | {"at": AS_OF}, content=question.content
    )
    assert [one.code for one in record.findings] == ["retention.other_content"]
    assert asking.execute(planned).data["done"] == {"note": 1}


def test_an_answer_to_a_plan_that_no_longer_waits_is_asked_for_again(rig: Rig) -> None:
    """The step then finds that nobody has to be asked."""
    asking = rig.but(rules_of_disposition=disposition(limit={"records": 0}))
    asking.insert("note", id=1, at=OLD)
    planned = asking.plan("r1")
    waits_no_more = planned.model_copy(update={"data": {**planned.data}})
    del waits_no_more.data["request"]
    given = {"option": APPROVE, "reason": "", "user": "bo", "at": asking.clock.now()}
    with pytest.raises(AskAgain, match="no longer waits"):
        steps.take(asking.in_run("r1"), waits_no_more, content="", **given)
    assert steps.ask(asking.in_run("r1"), waits_no_more) is None


def test_a_large_plan_sliced_into_runs_asks_nevertheless(rig: Rig) -> None:
    """Three records may go by themselves; nine of three years, a year a run, may not."""
    limited = rig.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(9):
        limited.insert("note", id=number, at=OLD.replace(year=2020 + number // 3))
    first = limited.plan("r2022", AS_OF.replace(year=2022))
    assert first.data["request"] is None
    assert limited.execute(first, "r2022").data["done"] == {"note": 3}
    second = limited.plan("r2023", AS_OF.replace(year=2023))
    assert second.data["request"]
    [tripped] = second.data["tripped"]
    assert tripped == {
        "name": "note",
        "cause": "records",
        "planned": 3,
        "allowed": 3,
        "recent": 3,
    }


def test_what_was_approved_is_not_counted_against_the_next_run(rig: Rig) -> None:
    """A small run after a large one that somebody looked at asks nobody."""
    limited = rig.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(9):
        limited.insert("note", id=number, at=OLD)
    large = limited.plan("r1")
    limited.answer(large, "r1")
    assert limited.execute(large, "r1").data["done"] == {"note": 9}
    limited.insert("note", id=10, at=OLD)
    assert limited.plan("r2").data["request"] is None


def test_what_a_killed_run_erased_counts_towards_the_limits(rig: Rig) -> None:
    """It has not said what it did; the ledger has."""

    class Killed(Exception):
        pass

    def progress(stage: str) -> None:
        if stage == "committed":
            raise Killed

    limited = rig.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(3):
        limited.insert("note", id=number, at=OLD)
    with pytest.raises(Killed):
        limited.execute(limited.plan("r1"), "r1", progress)
    limited.insert("note", id=9, at=OLD)
    [tripped] = limited.plan("r2").data["tripped"]
    assert (tripped["name"], tripped["recent"]) == ("note", 3)


def test_what_nobody_was_asked_about_counts_though_another_class_was_approved(rig: Rig) -> None:
    """Sliced into runs beside a class that somebody looked at, a class trips nevertheless."""
    limited = rig.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(4):
        limited.insert("node", id=number, at=OLD)
    for number in range(2):
        limited.insert("note", id=number, at=OLD)
    first = limited.plan("r1")
    assert [one["name"] for one in first.data["tripped"]] == ["node"]
    limited.answer(first, "r1")
    assert limited.execute(first, "r1").data["done"] == {"node": 4, "note": 2}
    for number in range(2):
        limited.insert("note", id=10 + number, at=OLD)
    [tripped] = limited.plan("r2").data["tripped"]
    assert (tripped["name"], tripped["recent"]) == ("note", 2)


def test_a_record_that_comes_back_is_counted_each_time_it_goes(rig: Rig) -> None:
    """Its key stands in the ledger once; what each run erased is told nevertheless."""
    for run in ("r1", "r2"):
        rig.insert("note", id=1, at=OLD)
        planned = rig.plan(run)
        executed = rig.execute(planned, run)
        assert executed.data["done"] == {"note": 1}
        counted = rig.verify(planned, executed, run)
        assert counted.outcome is Outcome.PASS


def test_an_execution_that_counts_otherwise_than_the_ledger_is_found(rig: Rig) -> None:
    """Somebody else writes to the ledger, or its entries were lost."""
    rig.insert("note", id=1, at=OLD)
    planned = rig.plan("r1")
    executed = rig.execute(planned, "r1")
    tamper(rig.state_source, "UPDATE erasure_batch SET records = 5")
    counted = rig.verify(planned, executed, "r1")
    assert "retention.ledger_differs" in {one.code for one in counted.findings}


def test_entries_that_were_lost_since_are_found(rig: Rig) -> None:
    """Though the batch says still how many records it erased."""
    rig.insert("note", id=1, at=OLD)
    planned = rig.plan("r1")
    executed = rig.execute(planned, "r1")
    assert rig.verify(planned, executed, "r1").outcome is Outcome.PASS
    tamper(rig.state_source, "DELETE FROM erasure")
    found = [one.code for one in rig.verify(planned, executed, "r1").findings]
    assert found == ["retention.ledger_lost"]


def test_plan_is_refused_while_entries_of_earlier_runs_are_missing(rig: Rig) -> None:
    """It need not wait for the drill: until then a backup of the ledger may be gone."""
    rig.insert("note", id=1, at=OLD)
    rig.run("r1")
    tamper(rig.state_source, "DELETE FROM erasure")
    with pytest.raises(ControlFailed, match=r"lacks 1 entries of .* \(note\)") as refused:
        rig.plan("r2")
    assert "recover-ledger" in refused.value.action


def test_execution_is_refused_while_entries_of_earlier_runs_are_missing(rig: Rig) -> None:
    """They were lost since the plan, perhaps while it waited for its approval."""
    rig.insert("note", id=1, at=OLD)
    rig.run("r1")
    rig.insert("note", id=2, at=OLD)
    planned = rig.plan("r2")
    tamper(rig.state_source, "DELETE FROM erasure")
    with pytest.raises(ControlFailed, match="lacks 1 entries"):
        rig.execute(planned, "r2")
    assert rig.keys_in("note") == {("2",)}


def test_what_the_step_wrote_down_does_not_open_the_limits(rig: Rig) -> None:
    """It is not bound to a hash; the limits are asked again when the plan is executed."""
    limited = rig.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(9):
        limited.insert("note", id=number, at=OLD)
    planned = limited.plan("r1")
    data = {key: value for key, value in planned.data.items() if key != "request"}
    edited = planned.model_copy(update={"data": data | {"tripped": []}})
    executed = limited.execute(edited, "r1")
    assert (executed.data["done"], executed.data["not_approved"]) == ({}, ["note"])


def test_what_another_run_erased_meanwhile_counts_when_a_plan_is_executed(rig: Rig) -> None:
    """Two plans within their limits are beyond them together."""
    limited = rig.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(2):
        limited.insert("note", id=number, at=OLD)
    first, second = limited.plan("r1"), limited.plan("r2")
    assert limited.execute(first, "r1").data["done"] == {"note": 2}
    for number in range(10, 12):
        limited.insert("note", id=number, at=OLD)
    assert limited.execute(second, "r2").data["not_approved"] == ["note"]


def test_an_answer_is_to_the_classes_that_the_question_named(rig: Rig) -> None:
    """Another run erased of a second class meanwhile: nobody was asked about that one."""
    limited = rig.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(4):
        limited.insert("node", id=number, at=OLD)
    for number in range(2):
        limited.insert("note", id=number, at=OLD)
    asked, other = limited.plan("r1"), limited.plan("r2")
    assert [one["name"] for one in asked.data["tripped"]] == ["node"]
    assert limited.execute(other, "r2").data["done"] == {"note": 2}
    for number in range(10, 12):
        limited.insert("note", id=number, at=OLD)
    limited.answer(asked, "r1")
    executed = limited.execute(asked, "r1")
    assert (executed.data["done"], executed.data["not_approved"]) == ({"node": 4}, ["note"])
    assert [one.code for one in executed.findings] == ["retention.not_approved"]


def test_what_the_database_erased_is_held_against_the_ledger(rig: Rig) -> None:
    """The count of the execution itself, not the ledger's twice."""
    rig.insert("note", id=1, at=OLD)
    planned = rig.plan("r1")
    executed = rig.execute(planned, "r1")
    assert executed.data["counted"] == executed.data["entered"] == {"note": 1}
    other = executed.model_copy(update={"data": executed.data | {"counted": {"note": 2}}})
    counted = rig.verify(planned, other, "r1")
    assert "retention.ledger_differs" in {one.code for one in counted.findings}


def test_partitions_are_counted_over_all_tries(rig: Rig) -> None:
    """By what is gone, so that a repeated execution tells of those before it too."""
    rig.insert("event", no=1, at=OLD, who="p1")
    planned = rig.plan("r1")
    first = rig.execute(planned, "r1")
    again = rig.execute(planned, "r1")
    assert first.data["partitions"] == again.data["partitions"] == {"event": 1}
