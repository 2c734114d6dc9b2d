"""Tests of faults while an audit is concluded: killed processes, replaced files, changed packs."""

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
from tests.sampling.audit_fixtures import Audit, codes
from tests.sampling.draw_fixtures import (
    audit_rules,
    committed_population,
    conclusion_context,
    hand_in,
    make_draw,
    returned_workbook,
)
from tests.support.contexts import step_record

WAITS = "wait_event_type = 'Lock'"


def _child(source: str, part: str, after: bool) -> None:
    state = engine(source)
    issued = make_draw(committed_population(), committed_population("intake", 60, plan="staged"))
    step_record(EVALUATE, conclusion_context(state, issued.rules), part)
    if after:
        os.kill(os.getpid(), signal.SIGKILL)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_evaluation_that_is_killed_before_database_commit_changes_no_row_and_can_be_repeated(
    audit: Audit, state_database: str
) -> None:
    """If the process is killed before its commit, the database is unchanged.

    If it is killed after its commit, the step record is complete.
    """
    part = audit.return_first_stage({"intake": (2,), "shares": (1,)})
    before = audit.database_rows()
    with audit.state.connect() as holder:
        holder.execute(text("LOCK TABLE run_artifact"))  # the last table that the step writes
        child = FORK.Process(target=_child, args=(state_database, part, False))
        child.start()
        _until(lambda: sessions(audit, WAITS) == 1)
        child.kill()
        child.join()
    _until(lambda: sessions(audit, "state <> 'idle'") == 0)
    assert audit.database_rows() == before
    child = FORK.Process(target=_child, args=(state_database, part, True))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    rows_after_kill = audit.database_rows()
    with audit.state.connect() as conn:
        (stored,) = steps_of(conn, "conclude_audit", "r1")
    record = audit.evaluate(part)
    assert stored == record
    assert audit.database_rows() == rows_after_kill
    assert len(audit.findings()) == 2
    assert {code for code, _severity, _subject in codes(record)} >= {"sampling.not_accepted"}


@pytest.mark.parametrize("stages", [1, 2])
def test_workpapers_cannot_be_replaced_during_evaluation(audit: Audit, stages: int) -> None:
    """A replacement would lose the answers on which the verdict or the next stage is based."""
    issued = make_draw(
        committed_population(plan="staged" if stages == 2 else "single"), audit="2026Q2"
    )
    audit.issue(issued)
    part = hand_in(audit.state, returned_workbook(issued.papers, {"shares": (1,)})).name
    messages: list[str] = []

    def replace() -> None:
        try:
            hand_in(audit.state, returned_workbook(issued.papers))
        except UsageError as error:
            messages.append(error.message)

    judging = threading.Thread(target=audit.evaluate, args=(part,))
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
    assert messages == ["The audit 2026Q2, stage 1, was concluded on other workpapers."]
    with audit.state.connect() as conn:
        assert len(issue.all_issued(conn, "2026Q2")) == stages


def sessions(audit: Audit, condition: str) -> int:
    """Count the other sessions of the state database that meet a condition.

    Each call needs its own transaction, because pg_stat_activity does not change within a
    transaction.
    """
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        f"AND pid <> pg_backend_pid() AND {condition}"
    )
    with audit.state.connect() as conn:
        return int(conn.execute(query).scalar_one())


def test_population_is_still_evaluated_after_its_removal_from_policy_pack(audit: Audit) -> None:
    """The texts of the population are read from the workpapers.

    Findings go to the management, and the step reports this.
    """
    part = audit.return_first_stage({"shares": (1,)})
    audit.rules = audit_rules("other")
    record = audit.evaluate(part)
    assert codes(record) == [
        ("sampling.population_gone", Outcome.ATTENTION, "shares"),
        ("sampling.not_accepted", Outcome.FAIL, "shares"),
        ("sampling.population_gone", Outcome.ATTENTION, "intake"),
    ]
    (finding,) = audit.findings()
    assert finding.owner == "management"
    assert Translator("en").text(finding.description).startswith("Shares, item shares--")
    assert "Was it approved? no" in Translator("en").text(finding.description)


def test_findings_contain_questions_of_issued_workpapers_if_audit_yaml_changed_after_draw(
    audit: Audit,
) -> None:
    """Changes of audit.yaml after the draw do not apply to the issued workpapers."""
    part = audit.return_first_stage({"shares": (1,)})
    changed = audit_rules("shares", "intake").model_dump(mode="json")
    for population in changed["populations"]:
        population["title"]["en"] = "Renamed"
        population["attributes"] = [
            {"id": "new", "question": {"en": "New?", "zh-CN": "新？"}, "basis": "business"}
        ]
    audit.rules = type(audit.rules).model_validate(changed)
    record = audit.evaluate(part)
    content = json.dumps(record.data, ensure_ascii=False)
    assert "New?" not in content
    assert "是否受约束？" in content
    assert "Shares, item" in Translator("en").text(audit.findings()[0].description)
