"""Processes that die, files that come twice, packs that change while an audit is out."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text

from include.evidence.model import Outcome
from include.evidence.step_findings import steps_of
from include.reports.i18n import Translator
from include.sampling import issue
from include.sampling.closing import EVALUATE
from include.services.errors import UsageError
from include.state.connect import engine
from tests.evidence.support import FORK
from tests.sampling.closed import Audit, codes
from tests.sampling.drawn import committed, concluding, draw, hand_in, returned, rules
from tests.support.contexts import step_record

WAITS = "wait_event_type = 'Lock'"


def _child(source: str, part: str, after: bool) -> None:
    state = engine(source)
    made = draw(committed(), committed("intake", 60, plan="staged"))
    step_record(EVALUATE, concluding(state, made.rules), part)
    if after:
        os.kill(os.getpid(), signal.SIGKILL)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_an_evaluation_that_was_killed_is_done_again(audit: Audit, state_database: str) -> None:
    """Killed before its commit it left nothing; killed after it, even its record is there."""
    part = audit.back({"intake": (2,), "shares": (1,)})
    before = audit.everything()
    with audit.state.connect() as holder:
        holder.execute(text("LOCK TABLE run_artifact"))  # what it writes last
        child = FORK.Process(target=_child, args=(state_database, part, False))
        child.start()
        _until(lambda: sessions(audit, WAITS) == 1)
        child.kill()
        child.join()
    _until(lambda: sessions(audit, "state <> 'idle'") == 0)
    assert audit.everything() == before
    child = FORK.Process(target=_child, args=(state_database, part, True))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    left = audit.everything()
    with audit.state.connect() as conn:
        (kept,) = steps_of(conn, "conclude_audit", "r1")
    record = audit.evaluated(part)
    assert kept == record
    assert audit.everything() == left
    assert len(audit.findings()) == 2
    assert {code for code, _severity, _subject in codes(record)} >= {"sampling.not_accepted"}


@pytest.mark.parametrize("stages", [1, 2])
def test_another_file_cannot_take_the_place_of_one_that_is_being_judged(
    audit: Audit, stages: int
) -> None:
    """Otherwise nobody would have the answers any more of which the verdict, or next stage, is."""
    made = draw(committed(plan="staged" if stages == 2 else "single"), audit="2026Q2")
    audit.issue(made)
    part = hand_in(audit.state, returned(made.papers, {"shares": (1,)})).part
    told: list[str] = []

    def replace() -> None:
        try:
            hand_in(audit.state, returned(made.papers))
        except UsageError as error:
            told.append(error.message)

    judging = threading.Thread(target=audit.evaluated, args=(part,))
    replacing = threading.Thread(target=replace)
    with audit.state.connect() as holder:
        holder.execute(text("LOCK TABLE run_artifact IN SHARE MODE"))
        judging.start()
        _until(lambda: sessions(audit, WAITS) == 1)
        replacing.start()
        _until(lambda: sessions(audit, WAITS) == 2 or not replacing.is_alive())
        holder.rollback()
    judging.join()
    replacing.join()
    assert told == ["The audit 2026Q2, stage 1, was concluded on other workpapers."]
    with audit.state.connect() as conn:
        assert len(issue.all_issued(conn, "2026Q2")) == stages


def sessions(audit: Audit, condition: str) -> int:
    """Count the other sessions of the state database with a condition.

    Each count needs a transaction of its own: in one transaction pg_stat_activity never changes.
    """
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        f"AND pid <> pg_backend_pid() AND {condition}"
    )
    with audit.state.connect() as conn:
        return int(conn.execute(query).scalar_one())


def test_a_population_that_was_taken_out_of_the_pack_is_judged_all_the_same(audit: Audit) -> None:
    """By the words with which it was drawn; its findings go to the management, and this is told."""
    part = audit.back({"shares": (1,)})
    audit.rules = rules("other")
    record = audit.evaluated(part)
    assert codes(record) == [
        ("sampling.population_gone", Outcome.ATTENTION, "shares"),
        ("sampling.not_accepted", Outcome.FAIL, "shares"),
        ("sampling.population_gone", Outcome.ATTENTION, "intake"),
    ]
    (found,) = audit.findings()
    assert found.owner == "management"
    assert Translator("en").text(found.what).startswith("Shares, item shares--")
    assert "Was it approved? no" in Translator("en").text(found.what)


def test_questions_are_told_as_they_were_asked(audit: Audit) -> None:
    """Whatever audit.yaml says by now: nobody looked at another question."""
    part = audit.back({"shares": (1,)})
    changed = rules("shares", "intake").model_dump(mode="json")
    for one in changed["populations"]:
        one["title"]["en"] = "Renamed"
        one["attributes"] = [
            {"id": "new", "question": {"en": "New?", "zh-CN": "新？"}, "basis": "business"}
        ]
    audit.rules = type(audit.rules).model_validate(changed)
    record = audit.evaluated(part)
    told = json.dumps(record.data, ensure_ascii=False)
    assert "New?" not in told
    assert "是否受约束？" in told
    assert "Shares, item" in Translator("en").text(audit.findings()[0].what)
