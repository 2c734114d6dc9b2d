"""What a run adds up to: nothing that is missing passes, and the worst of anything counts."""

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


def codes(found: Conclusion) -> set[str]:
    return {one.code for one in found.findings}


def test_a_whole_backup_run_passes(manifests: dict[str, Manifest]):
    """Every record there, every database signed."""
    found = conclude_backup(backup_records(), [mapped()], manifests, asked=["courier"])
    assert (found.outcome, found.findings) == (PASS, [])
    assert "Every mapped database" in found.summary.text
    headings = [one.heading.text for one in found.sections]
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
def test_a_missing_record_of_a_backup_fails(
    manifests: dict[str, Manifest],
    changes: dict[str, StepRecord | None],
    signed: bool,
    code: str,
):
    """Whatever was killed: a green run needs the record of every step, and a signed manifest."""
    found = conclude_backup(
        backup_records(**changes), [mapped()], manifests if signed else {}, asked=["courier"]
    )
    assert found.outcome is FAIL
    assert code in codes(found)
    assert next(one for one in found.findings if one.code == code).severity is FAIL


def test_no_record_at_all_fails(manifests: dict[str, Manifest]):
    """Also with a manifest that lies about."""
    for one in ({}, manifests):
        found = conclude_backup([], [mapped()], one, asked=["courier"])
        assert found.outcome is FAIL
    assert conclude_drill([], [mapped()], {}).outcome is FAIL


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("outcome", [ATTENTION, FAIL])
@pytest.mark.parametrize("name", ["preflight", "backup", "prune"])
def test_the_worst_step_of_a_backup_counts(
    manifests: dict[str, Manifest], name: str, outcome: Outcome, silent: bool
):
    """By its findings, and by its outcome when it left none."""
    (good,) = (one for one in backup_records() if one.step == name)
    bad = step(name, good.part, outcome, silent=silent, **good.data)
    found = conclude_backup(backup_records(**{name: bad}), [mapped()], manifests, asked=["courier"])
    assert found.outcome is outcome


def test_databases_that_were_not_asked_for_are_said(manifests: dict[str, Manifest]):
    """Nobody may take them for backed up; one that was asked for and is not mapped fails."""
    two = [mapped(), mapped(name="billing")]
    some = conclude_backup(backup_records(), two, manifests, asked=["courier"])
    assert (some.outcome, codes(some)) == (ATTENTION, {"backup.left_out"})
    assert some.summary.values == {"made": 1, "mapped": 2}
    assert "Every" not in some.summary.text
    both = conclude_backup(backup_records(), two, manifests, asked=["courier", "billing"])
    assert (both.outcome, codes(both)) == (FAIL, {"backup.missing"})
    assert "Only {made} of {wanted}" in both.summary.text
    typed = conclude_backup(backup_records(), [mapped()], manifests, asked=["courier", "curier"])
    assert (typed.outcome, [one.subject for one in typed.findings]) == (FAIL, ["curier"])


def test_asking_for_nothing_fails(manifests: dict[str, Manifest]):
    """Nothing looked at is no control that held."""
    nothing = conclude_backup(backup_records(), [mapped()], manifests, asked=[])
    assert nothing.outcome is FAIL
    assert conclude_backup(backup_records(), [], {}, asked=[]).outcome is FAIL
    assert conclude_drill([], [], {}).outcome is FAIL


def test_figures_are_only_of_what_was_asked_for(manifests: dict[str, Manifest]):
    """A manifest of another database in the folder does not make the run look complete."""
    foreign = {"billing": manifests["courier"]}
    found = conclude_backup(backup_records(), [mapped()], foreign, asked=["courier"])
    facts = {one.label.text: one for one in found.facts}
    assert facts["Databases backed up"].status is FAIL
    assert facts["Rows"].value is None


HISTORY = {"courier": [PastDrill(NOW - timedelta(days=7), PASS, 4.0), PastDrill(NOW, PASS, 5.0)]}


def test_a_whole_drill_passes():
    """Chosen, refused what had to be, restored and compared."""
    found = conclude_drill(drilled(), [mapped()], HISTORY)
    assert (found.outcome, found.findings) == (PASS, [])
    assert "is the same as the original" in found.summary.text


@pytest.mark.parametrize("name", ["choose", "refusals", "drill"])
def test_a_missing_record_of_a_drill_fails(name: str):
    """Each step by itself; the summary does not claim a restore."""
    found = conclude_drill(drilled(**{name: None}), [mapped()], HISTORY)
    assert found.outcome is FAIL
    assert codes(found) == {f"drill.{name}.missing"}
    if name != "choose":
        assert "only {restored} of {wanted}" in found.summary.text


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("outcome", [ATTENTION, FAIL])
@pytest.mark.parametrize("name", ["choose", "refusals", "drill"])
def test_the_worst_step_of_a_drill_counts(name: str, outcome: Outcome, silent: bool):
    """By its findings, and by its outcome when it left none."""
    (good,) = (one for one in drilled() if one.step == name)
    bad = step(name, "courier", outcome, silent=silent, **good.data)
    found = conclude_drill(drilled(**{name: bad}), [mapped()], HISTORY)
    assert found.outcome is outcome
    assert "is the same as the original" not in found.summary.text


def test_one_of_two_databases_is_not_enough():
    """Every mapped database is drilled."""
    found = conclude_drill(drilled(), [mapped(), mapped(name="billing")], HISTORY)
    assert (found.outcome, codes(found)) == (FAIL, {"drill.choose.missing"})
    assert found.summary.values == {"restored": 1, "wanted": 2}


def test_accepted_damage_reads_no_and_untried_damage_reads_not_measured():
    """A wrong key that was accepted was measured; nobody may take it for a gap."""

    def answers(records: list[StepRecord]) -> list[object]:
        table = conclude_drill(records, [mapped()], {}).sections[0].blocks[0]
        return [row[1] for row in table.rows[:3]]  # type: ignore[union-attr] # it is the table

    accepted = step("refusals", "courier", FAIL, restore_point="x", refused=["truncated"])
    assert answers(drilled(refusals=accepted)) == [_("no"), _("yes"), _("no")]
    assert answers(drilled(refusals=None)) == [None, None, None]


def test_a_failed_drill_claims_nothing():
    """The closing section of a drill that restored nothing must not say that it did."""
    last = conclude_drill([], [mapped()], {}).sections[-1]
    assert "proves no restore" in str(last.blocks[0])


def test_figures_that_were_not_measured_are_no_zeros():
    """A drill that did not finish shows no erased records brought back, and no good time."""
    found = conclude_drill(drilled(drill=None), [mapped()], {})
    facts = {one.label.text: one for one in found.facts}
    assert facts["Erased records brought back"].value is None
    assert facts["Erased records brought back"].status is None
    assert facts["Longest restore"].value is None
    brought = step("drill", "courier", FAIL, erasures=2, remaining=2, rows=1)
    facts = {
        one.label.text: one for one in conclude_drill(drilled(drill=brought), [mapped()], {}).facts
    }
    assert facts["Erased records brought back"].value == 2
    assert facts["Erased records brought back"].status is FAIL


def indicators(found: Conclusion) -> list[float | int | None]:
    return [one.value for one in found.metrics if one.name.startswith("databases_")]


def preflight(**at_primary: bool | None) -> StepRecord:
    return step("preflight", "", store="s3://x", at_primary_site=at_primary)


@pytest.mark.parametrize(
    ("sites", "expected"),
    [({"courier": False}, 0), ({"courier": True}, 1), ({"courier": None}, None), ({}, None)],
)
def test_backups_count_as_apart_only_when_somebody_said_where(
    manifests: dict[str, Manifest], sites: dict[str, bool | None], expected: int | None
):
    """Unknown is not zero."""
    records = backup_records(preflight=preflight(**sites))
    found = conclude_backup(records, [mapped()], manifests, asked=["courier"])
    assert indicators(found) == [0, expected]


def test_indicators_tell_of_all_mapped_databases_or_of_nothing(manifests: dict[str, Manifest]):
    """Part of a run cannot show that every database is backed up, only that one is not."""
    two = [mapped(), mapped(name="billing")]
    records = backup_records(preflight=preflight(courier=False, billing=False))
    some = conclude_backup(records, two, manifests, asked=["courier"])
    assert indicators(some) == [None, None]
    failed = conclude_backup(records, two, manifests, asked=["courier", "billing"])
    assert indicators(failed) == [1, None]
    nothing = conclude_backup(records, [], {}, asked=[])
    assert indicators(nothing) == [None, None]
    two_drilled = conclude_drill(drilled(), two, {})
    assert indicators(two_drilled) == [1]
    assert indicators(conclude_drill([], [], {})) == [None]


def test_an_empty_erasure_ledger_is_no_pass():
    """With nothing to look for, nothing was shown; with entries the count is said."""

    def fact(**data: int) -> Any:
        record = step("drill", "courier", **{"rows": 1, **data})
        found = conclude_drill(drilled(drill=record), [mapped()], {})
        return next(one for one in found.facts if one.label.text == "Erased records brought back")

    empty = fact(erasures=0, remaining=0)
    assert (empty.value, empty.status) == (_("nothing to check"), None)
    full = fact(erasures=3, remaining=0)
    assert (full.value, full.status) == (0, PASS)
    assert full.note is not None


@pytest.mark.parametrize("name", ["preflight", "backup", "prune", "choose", "refusals", "drill"])
def test_a_step_that_left_only_its_failure_still_has_a_report(
    manifests: dict[str, Manifest], name: str
):
    """Killed, or stopped by an error: its record holds no data, and the seal must not stumble."""
    empty = StepRecord(step=name, part="" if name == "preflight" else "courier", outcome=FAIL)
    if name in {"preflight", "backup", "prune"}:
        records = backup_records(**{name: empty})
        found = conclude_backup(
            records, [mapped()], {} if name == "backup" else manifests, asked=["courier"]
        )
    else:
        found = conclude_drill(drilled(**{name: empty}), [mapped()], HISTORY)
        assert indicators(found) == [1]
    assert found.outcome is FAIL


def test_erased_records_that_could_not_be_looked_for_are_no_pass():
    """Of a table that the copy does not have under that name."""
    record = step("drill", "courier", rows=1, erasures=3, remaining=0, not_looked_for=3)
    found = conclude_drill(drilled(drill=record), [mapped()], {})
    fact = next(one for one in found.facts if one.label.text == "Erased records brought back")
    assert (fact.value, fact.status) == (None, FAIL)
