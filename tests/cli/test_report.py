"""The error that `run` and `up` print for a sealed run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from include.cli.report import result_of
from include.evidence.bundle import seal
from include.evidence.model import Finding, Outcome
from include.evidence.signing import Signer, generate_key
from include.messages import _
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.workplace import Workplace
from tests.evidence.support import CLOCK
from tests.evidence.support import result_of as sealed


@pytest.fixture
def place(tmp_path: Path, migrated_database: str) -> Workplace:
    """A store without a bundle, an empty state database and a key."""
    signer = Signer.from_pem(generate_key())
    made = SimpleNamespace(
        state=engine(migrated_database),
        store=lambda _name: DirectoryStore(tmp_path),
        signer=signer,
        trusted=[signer.public_pem],
    )
    return cast(Workplace, made)


def seal_findings(place: Workplace, findings: list[Finding]) -> tuple[str, str]:
    """Seal a run that left findings; returns its dag id and run id."""
    result = sealed().model_copy(update={"findings": findings})
    with place.state.connect() as conn:
        seal(
            place.store("evidence_store"), conn, place.signer, result=result, files={}, clock=CLOCK
        )
    return result.run.dag_id, result.run.run_id


def finding(severity: Outcome, subject: str) -> Finding:
    return Finding(
        code="schema.drift.undeclared_table",
        severity=severity,
        subject=subject,
        message=_("The database has a table that the data map lacks, with {n} columns.", n=2),
        action=_("Declare it."),
    )


def test_error_names_the_subject_of_the_first_failed_finding(place: Workplace) -> None:
    """The finding's message names neither database nor table."""
    findings = [
        finding(Outcome.ATTENTION, "courier.public.other"),
        finding(Outcome.FAIL, "courier.public.scratch"),
        finding(Outcome.FAIL, "courier.public.third"),
    ]
    run = seal_findings(place, findings)
    assert result_of(place, *run, "failed", "log").error == (
        "courier.public.scratch: The database has a table that the data map lacks, with 2 "
        "columns. Declare it."
    )


def test_run_without_a_failed_finding_has_no_error(place: Workplace) -> None:
    """Findings that need attention are in the report only."""
    findings = [finding(Outcome.ATTENTION, "courier.public.other")]
    run = seal_findings(place, findings)
    assert result_of(place, *run, "success", "log").error is None
