"""Test the outcome of backup runs and restore drills.

A missing step record fails the run. Otherwise, the worst outcome of a step decides.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.backup.drill_report import PastDrill
from include.backup.manifest import Manifest
from include.evidence.model import Outcome, StepRecord
from include.messages import _
from include.reports.conclusion import Conclusion
from tests.backup.report_records import (
    backup_records,
    conclude_backup,
    conclude_drill,
    drilled,
    step,
)
from tests.backup.support import Taken, mapped
from tests.support.holders import NOW

PASS, ATTENTION, FAIL = Outcome.PASS, Outcome.ATTENTION, Outcome.FAIL


@pytest.fixture
def manifests(taken: Taken) -> dict[str, Manifest]:
    return {"courier": taken.manifest}


def codes(conclusion: Conclusion) -> set[str]:
    return {finding.code for finding in conclusion.findings}


def test_complete_backup_run_passes(manifests: dict[str, Manifest]):
    conclusion = conclude_backup(backup_records(), [mapped()], manifests, requested=["courier"])
    assert (conclusion.outcome, conclusion.findings) == (PASS, [])
    assert "Every mapped database" in conclusion.summary.text
    headings = [section.heading.text for section in conclusion.sections]
    assert len(headings) == 5


@pytest.mark.parametrize(
    ("changes", "signed", "code"),
    [
        ({"preflight": None}, True, "backup.no_preflight"),
        ({"backup": None, "prune": None}, False, "backup.missing"),
        ({"backup": None}, True, "backup.missing"),
        ({"prune": None}, True, "prune.missing"),
        ({}, False, "backup.unsigned"),
    ],
)
def test_backup_run_with_missing_step_record_or_unsigned_manifest_fails(
    manifests: dict[str, Manifest],
    changes: dict[str, StepRecord | None],
    signed: bool,
    code: str,
):
    """A run passes only with the record of every step and a signed manifest."""
    conclusion = conclude_backup(
        backup_records(**changes), [mapped()], manifests if signed else {}, requested=["courier"]
    )
    assert conclusion.outcome is FAIL
    assert code in codes(conclusion)
    assert next(finding for finding in conclusion.findings if finding.code == code).severity is FAIL


def test_backup_run_without_any_step_record_fails(manifests: dict[str, Manifest]):
    """This also applies if the run stored a manifest."""
    for manifest_set in ({}, manifests):
        conclusion = conclude_backup([], [mapped()], manifest_set, requested=["courier"])
        assert conclusion.outcome is FAIL
    assert conclude_drill([], [mapped()], {}).outcome is FAIL


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("outcome", [ATTENTION, FAIL])
@pytest.mark.parametrize("name", ["preflight", "backup", "prune"])
def test_outcome_of_backup_run_is_that_of_its_worst_step(
    manifests: dict[str, Manifest], name: str, outcome: Outcome, silent: bool
):
    """If a step has no findings, the outcome in its record counts."""
    (good,) = (record for record in backup_records() if record.step == name)
    bad = step(name, good.part, outcome, silent=silent, **good.data)
    conclusion = conclude_backup(
        backup_records(**{name: bad}), [mapped()], manifests, requested=["courier"]
    )
    assert conclusion.outcome is outcome


def test_mapped_databases_that_were_not_requested_are_reported(manifests: dict[str, Manifest]):
    """A requested database that is not in the data map fails the run."""
    two = [mapped(), mapped(name="billing")]
    some = conclude_backup(backup_records(), two, manifests, requested=["courier"])
    assert (some.outcome, codes(some)) == (ATTENTION, {"backup.left_out"})
    assert some.summary.values == {"count": 1, "mapped": 2}
    assert "Every" not in some.summary.text
    conclusion = conclude_backup(backup_records(), two, manifests, requested=["courier", "billing"])
    assert (conclusion.outcome, codes(conclusion)) == (FAIL, {"backup.missing"})
    assert "Only {count} of {requested}" in conclusion.summary.text
    typed = conclude_backup(
        backup_records(), [mapped()], manifests, requested=["courier", "curier"]
    )
    assert (typed.outcome, [finding.subject for finding in typed.findings]) == (FAIL, ["curier"])


def test_backup_run_that_was_requested_for_no_database_fails(manifests: dict[str, Manifest]):
    nothing = conclude_backup(backup_records(), [mapped()], manifests, requested=[])
    assert nothing.outcome is FAIL
    assert conclude_backup(backup_records(), [], {}, requested=[]).outcome is FAIL
    assert conclude_drill([], [], {}).outcome is FAIL


def test_backup_report_figures_ignore_databases_that_were_not_requested(
    manifests: dict[str, Manifest],
):
    """The manifest of such a database does not replace that of a requested database."""
    foreign = {"billing": manifests["courier"]}
    conclusion = conclude_backup(backup_records(), [mapped()], foreign, requested=["courier"])
    facts = {fact.label.text: fact for fact in conclusion.facts}
    assert facts["Databases backed up"].status is FAIL
    assert facts["Rows"].value is None


HISTORY = {"courier": [PastDrill(NOW - timedelta(days=7), PASS, 4.0), PastDrill(NOW, PASS, 5.0)]}


def test_complete_drill_run_passes():
    conclusion = conclude_drill(drilled(), [mapped()], HISTORY)
    assert (conclusion.outcome, conclusion.findings) == (PASS, [])
    assert "matches the original" in conclusion.summary.text


@pytest.mark.parametrize("name", ["choose", "refusals", "drill"])
def test_drill_run_with_missing_step_record_fails(name: str):
    """The summary must not claim a restore for which step records are missing."""
    conclusion = conclude_drill(drilled(**{name: None}), [mapped()], HISTORY)
    assert conclusion.outcome is FAIL
    assert codes(conclusion) == {f"drill.{name}.missing"}
    if name != "choose":
        assert "Only {restored} of {mapped}" in conclusion.summary.text


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("outcome", [ATTENTION, FAIL])
@pytest.mark.parametrize("name", ["choose", "refusals", "drill"])
def test_outcome_of_drill_run_is_that_of_its_worst_step(name: str, outcome: Outcome, silent: bool):
    """If a step has no findings, the outcome in its record counts."""
    (good,) = (record for record in drilled() if record.step == name)
    bad = step(name, "courier", outcome, silent=silent, **good.data)
    conclusion = conclude_drill(drilled(**{name: bad}), [mapped()], HISTORY)
    assert conclusion.outcome is outcome
    assert "matches the original" not in conclusion.summary.text


def test_drill_run_that_omits_a_mapped_database_fails():
    conclusion = conclude_drill(drilled(), [mapped(), mapped(name="billing")], HISTORY)
    assert (conclusion.outcome, codes(conclusion)) == (FAIL, {"drill.choose.missing"})
    assert conclusion.summary.values == {"restored": 1, "mapped": 2}


def test_drill_report_distinguishes_accepted_damaged_dump_from_test_that_did_not_run():
    """If a restore accepted the wrong key, the report must not say that this was not measured."""

    def answers(records: list[StepRecord]) -> list[object]:
        table = conclude_drill(records, [mapped()], {}).sections[0].blocks[0]
        return [row[1] for row in table.rows[:3]]  # type: ignore[union-attr] # it is the table

    accepted = step("refusals", "courier", FAIL, restore_point="x", refused=["truncated"])
    assert answers(drilled(refusals=accepted)) == [_("no"), _("yes"), _("no")]
    assert answers(drilled(refusals=None)) == [None, None, None]


def test_report_of_failed_drill_says_that_no_database_is_proven_to_be_restorable():
    last = conclude_drill([], [mapped()], {}).sections[-1]
    assert "did not prove that any database can be restored" in str(last.blocks[0])


def test_drill_report_shows_unmeasured_figures_as_empty_and_not_as_zero():
    """An interrupted drill has neither a number of erased records nor a restore time."""
    conclusion = conclude_drill(drilled(drill=None), [mapped()], {})
    facts = {fact.label.text: fact for fact in conclusion.facts}
    assert facts["Erased records that the restore brought back"].value is None
    assert facts["Erased records that the restore brought back"].status is None
    assert facts["Longest restore"].value is None
    brought = step("drill", "courier", FAIL, erasures=2, remaining=2, rows=1)
    facts = {
        fact.label.text: fact
        for fact in conclude_drill(drilled(drill=brought), [mapped()], {}).facts
    }
    assert facts["Erased records that the restore brought back"].value == 2
    assert facts["Erased records that the restore brought back"].status is FAIL


def indicators(conclusion: Conclusion) -> list[float | int | None]:
    return [metric.value for metric in conclusion.metrics if metric.name.startswith("databases_")]


def preflight(**at_primary: bool | None) -> StepRecord:
    return step("preflight", "", store="s3://x", at_primary_site=at_primary)


@pytest.mark.parametrize(
    ("sites", "expected"),
    [({"courier": False}, 0), ({"courier": True}, 1), ({"courier": None}, None), ({}, None)],
)
def test_number_of_backups_at_primary_site_is_unknown_if_a_site_is_undeclared(
    manifests: dict[str, Manifest], sites: dict[str, bool | None], expected: int | None
):
    records = backup_records(preflight=preflight(**sites))
    conclusion = conclude_backup(records, [mapped()], manifests, requested=["courier"])
    assert indicators(conclusion) == [0, expected]


def test_indicators_are_unknown_if_not_all_mapped_databases_were_requested(
    manifests: dict[str, Manifest],
):
    """Such a run can show that a database has no backup, but not that all have backups."""
    two = [mapped(), mapped(name="billing")]
    records = backup_records(preflight=preflight(courier=False, billing=False))
    some = conclude_backup(records, two, manifests, requested=["courier"])
    assert indicators(some) == [None, None]
    failed = conclude_backup(records, two, manifests, requested=["courier", "billing"])
    assert indicators(failed) == [1, None]
    nothing = conclude_backup(records, [], {}, requested=[])
    assert indicators(nothing) == [None, None]
    two_drilled = conclude_drill(drilled(), two, {})
    assert indicators(two_drilled) == [1]
    assert indicators(conclude_drill([], [], {})) == [None]


def test_drill_report_shows_no_outcome_if_erasure_ledger_is_empty():
    """If the ledger is empty, nothing was searched for.

    Otherwise, the number of entries is reported.
    """

    def fact(**data: int) -> Any:
        record = step("drill", "courier", **{"rows": 1, **data})
        conclusion = conclude_drill(drilled(drill=record), [mapped()], {})
        return next(
            fact
            for fact in conclusion.facts
            if fact.label.text == "Erased records that the restore brought back"
        )

    empty = fact(erasures=0, remaining=0)
    assert (empty.value, empty.status) == (_("no erased records to check"), None)
    full = fact(erasures=3, remaining=0)
    assert (full.value, full.status) == (0, PASS)
    assert full.note is not None


@pytest.mark.parametrize("name", ["preflight", "backup", "prune", "choose", "refusals", "drill"])
def test_run_fails_but_has_a_report_if_a_step_record_has_no_data(
    manifests: dict[str, Manifest], name: str
):
    """The step was killed or stopped by an error, so its record has no data."""
    empty = StepRecord(step=name, part="" if name == "preflight" else "courier", outcome=FAIL)
    if name in {"preflight", "backup", "prune"}:
        records = backup_records(**{name: empty})
        conclusion = conclude_backup(
            records, [mapped()], {} if name == "backup" else manifests, requested=["courier"]
        )
    else:
        conclusion = conclude_drill(drilled(**{name: empty}), [mapped()], HISTORY)
        assert indicators(conclusion) == [1]
    assert conclusion.outcome is FAIL


def test_drill_report_shows_outcome_failed_if_erased_records_were_not_searched_for():
    """The restored copy lacks the table of the erased records."""
    record = step("drill", "courier", rows=1, erasures=3, remaining=0, not_looked_for=3)
    conclusion = conclude_drill(drilled(drill=record), [mapped()], {})
    fact = next(
        fact
        for fact in conclusion.facts
        if fact.label.text == "Erased records that the restore brought back"
    )
    assert (fact.value, fact.status) == (None, FAIL)
