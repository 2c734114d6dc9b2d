"""The certificate: how a run is judged, what its head says, what it leaves unsaid."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert

from include.approvals.reasons import COMMAND_LINE
from include.evidence.model import Finding, Outcome, StepRecord
from include.messages import verbatim
from include.reports.i18n import Translator
from include.reports.model import Fact
from include.retention.certificate import report
from include.state.connect import engine
from include.state.tables import disposition
from tests.retention.certificate.certified import (
    SHA256,
    a_class,
    a_rule,
    a_run,
    certificate,
    counted,
    english,
    executed,
    indicators,
    one_left,
    planned,
    sentences,
)

GOOD = {"expired_records_unexplained": 0, "erasure_requests_overdue": 0}
UNKNOWN = dict.fromkeys(GOOD)
COPY = {
    "id": "2026/10/01",
    "taken_at": "2026-10-01T18:00:00+00:00",
    "expires_at": "2026-12-30T18:00:00+00:00",
    "held": False,
}


def codes(found: Any) -> list[str]:
    return [one.code for one in found.findings]


def fact(found: Any, label: str) -> Fact:
    (one,) = [it for it in found.facts if it.label.text == label]
    return one


def shown(found: Any, label: str) -> str:
    one = fact(found, label)
    return Translator("en").quantity(one.value, one.unit)


def test_a_run_counted_by_the_version_before_has_its_certificate() -> None:
    """Its records lack what is counted since; nothing else would be left of the run."""
    old = {key: value for key, value in one_left(held=3).items() if key != "waiting"}
    found = certificate(a_run(verify=counted({"order": 10}, [old])))
    assert shown(found, "Expired, kept on a ground") == "3 rows"


def test_a_run_that_erased_what_was_over_passes() -> None:
    """Its head says how much, and both controls have their figure."""
    found = certificate(a_run())
    assert found.outcome is Outcome.PASS
    assert english(found.summary) == (
        "What had expired is gone: 10 records deleted, 0 masked. What stays is explained."
    )
    assert indicators(found) == GOOD
    assert shown(found, "Records erased") == "10 rows"
    assert shown(found, "Expired, left without a ground") == "0 rows"
    assert fact(found, "Expired, left without a ground").status is Outcome.PASS
    assert fact(found, "Planned and not reached").status is Outcome.PASS
    assert shown(found, "Requests of data subjects") == "0 open"
    assert shown(found, "Backups hold what was erased until, at the earliest") == "none does"


def test_nothing_to_erase_is_said_as_such() -> None:
    """And is no fault."""
    nothing = planned(a_class(expired=0, to_delete=0))
    found = certificate(a_run(plan=nothing, execute=executed({}), verify=counted({}, [one_left()])))
    assert found.outcome is Outcome.PASS
    assert english(found.summary).startswith("Nothing had to be erased")


@pytest.mark.parametrize("step", ["plan", "execute", "verify"])
def test_a_step_that_left_no_record_fails_the_run(step: str) -> None:
    """And a figure that rests on it is not measured."""
    found = certificate(a_run(**{step: None}))
    assert found.outcome is Outcome.FAIL
    assert codes(found) == ["retention.missing"]
    assert english(found.summary) == "Not every database was worked on to its end."
    assert (indicators(found) == UNKNOWN) is (step == "verify")


@pytest.mark.parametrize("step", ["plan", "execute", "verify"])
def test_a_step_that_failed_says_so_itself(step: str) -> None:
    """One finding, not two; and its figures are not measured."""
    said = Finding(
        code=f"{step}.failed",
        severity=Outcome.FAIL,
        subject="shop",
        message=verbatim("it was started and did not finish"),
        action=verbatim("see the log"),
    )
    order = ["plan", "execute", "verify"]
    gone: dict[str, Any] = dict.fromkeys(order[order.index(step) :])
    records = a_run(**gone)
    records.append(StepRecord(step=step, part="shop", outcome=Outcome.FAIL, findings=[said]))
    found = certificate(records)
    assert found.outcome is Outcome.FAIL
    assert codes(found) == [f"{step}.failed"]
    assert indicators(found) == UNKNOWN
    erased = "10 rows" if step == "verify" else "not measured"
    assert shown(found, "Records erased") == erased
    assert shown(found, "Backups hold what was erased until, at the earliest") == "not measured"


@pytest.mark.parametrize("step", ["plan", "execute", "verify", None])
def test_only_a_run_that_came_to_its_end_says_what_it_proves(step: str | None) -> None:
    """What it does not see is said always."""
    lines = "\n".join(sentences(certificate(a_run(**({step: None} if step else {})))))
    for claim in ("by a keyed hash", "written separately. What", "another person than", "Legal"):
        assert (claim in lines) is (step is None), claim
    assert ("is not proven here" in lines) is (step is not None)
    assert "Backups are not changed" in lines
    assert "share nothing" not in lines


def test_an_answer_of_the_command_line_proves_no_second_person() -> None:
    """Whatever name it carries."""
    given = {"decision": "Approve", "decided_by": "bo", "decided_at": COPY["taken_at"]}
    answer = given | {"asked": True, "reason": COMMAND_LINE}
    lines = "\n".join(sentences(certificate(a_run(approve=answer))))
    assert "answered on the command line: that another person" in lines
    assert "executed only where another person" not in lines


def test_a_database_that_was_not_asked_for_is_noted() -> None:
    """Nobody takes it for done: the controls are not shown."""
    found = certificate(a_run(), names=("shop", "other"), asked=("shop",))
    assert found.outcome is Outcome.ATTENTION
    assert codes(found) == ["retention.left_out"]
    assert indicators(found) == UNKNOWN


def test_what_is_bad_stays_bad_though_another_database_is_unknown() -> None:
    """A missing count hides no expired record of another database."""
    left = counted({"order": 7}, [one_left(unexplained=3)])
    found = certificate(a_run(verify=left), names=("shop", "other"))
    assert found.outcome is Outcome.FAIL
    assert indicators(found)["expired_records_unexplained"] == 3
    assert indicators(found)["erasure_requests_overdue"] is None


def test_what_is_left_and_late_is_said_first() -> None:
    """In one sentence, and in red."""
    left = counted({"order": 7}, [one_left(unexplained=3)])
    found = certificate(a_run(verify=left))
    assert english(found.summary).startswith("3 records have expired and are still there")
    assert fact(found, "Expired, left without a ground").status is Outcome.FAIL
    late = counted({"order": 10}, [one_left()], requests_open=2, requests_overdue=1)
    found = certificate(a_run(verify=late))
    assert english(found.summary) == "1 requests of data subjects to be erased are overdue."
    assert shown(found, "Requests of data subjects") == "2 open"
    assert fact(found, "Requests of data subjects").status is Outcome.FAIL
    assert indicators(found) == GOOD | {"erasure_requests_overdue": 1}


def test_a_database_without_record_classes_is_a_finding() -> None:
    """Its steps have nothing to count; the other database is judged."""
    nothing = {
        "plan": planned(),
        "execute": executed({}),
        "verify": counted({}, []),
    }
    records = a_run() + a_run("other", **nothing)
    rules = {"shop": [a_rule()]}
    found = certificate(records, names=("shop", "other"), rules=rules)
    assert found.outcome is Outcome.ATTENTION
    assert codes(found) == ["retention.no_class"]
    assert indicators(found) == GOOD
    assert shown(found, "Records erased") == "10 rows"


def test_a_pack_without_a_schedule_shows_no_control() -> None:
    """Where nothing is required, nothing is shown to hold."""
    nothing = {"plan": planned(), "execute": executed({}), "verify": counted({}, [])}
    found = certificate(a_run(**nothing), rules={})
    assert found.outcome is Outcome.ATTENTION
    assert indicators(found) == UNKNOWN
    assert english(found.summary).startswith("The policy pack does not say how long")


def test_nobody_asked_for_anything_is_a_fail() -> None:
    """An empty run proves nothing."""
    assert certificate([], names=()).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("copies", "value", "note"),
    [
        (None, "not measured", ""),
        ([], "none does", ""),
        (
            [COPY, COPY | {"id": "b", "expires_at": "2027-01-02T18:00:00+00:00"}],
            "2027-01-03 02:00 UTC+08:00",
            "restore points: 2, the oldest of 2026-10-02 02:00 UTC+08:00",
        ),
        (
            [COPY | {"held": True}],
            "2026-12-31 02:00 UTC+08:00",
            "restore points: 1, the oldest of 2026-10-02 02:00 UTC+08:00; "
            "holds keep 1 of them longer",
        ),
    ],
)
def test_the_head_says_until_when_backups_hold_it(copies: Any, value: str, note: str) -> None:
    """Not measured where the store could not be read."""
    found = certificate(a_run(verify=counted({"order": 10}, [one_left()], copies=copies)))
    assert shown(found, "Backups hold what was erased until, at the earliest") == value
    assert english(fact(found, "Backups hold what was erased until, at the earliest").note) == note


def test_the_trend_shows_a_run_that_executed_nothing_as_a_gap(migrated_database: str) -> None:
    """It did not erase zero records: it did nothing."""
    state = engine(migrated_database)
    rows = [("a", "one", 3), ("a", "two", 4), ("b", "one", None), ("c", "one", 0)]
    with state.begin() as conn:
        for at, (run, name, done) in enumerate(rows):
            conn.execute(
                insert(disposition).values(
                    dag_id="enforce_retention",
                    run_id=run,
                    database="shop",
                    record_class=name,
                    planned_at=f"2026-11-{20 + at}T00:00:00+00:00",
                    as_of="2026-11-20T00:00:00+00:00",
                    plan_sha256=SHA256,
                    expired=9,
                    held=0,
                    planned=9,
                    done=done,
                )
            )
    with state.connect() as conn:
        assert [one.done for one in report.past(conn, "shop")] == [7, None, 0]
        assert report.past(conn, "other") == []
    state.dispose()
