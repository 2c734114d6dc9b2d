"""The error that the commands `run` and `up` print for a sealed run."""

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
from include.service_container import Services
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from tests.evidence.support import CLOCK
from tests.evidence.support import result_of as sealed


@pytest.fixture
def services(tmp_path: Path, migrated_database: str) -> Services:
    """Return services with an empty evidence store, an empty state database and a signing key."""
    signer = Signer.from_pem(generate_key())
    stub = SimpleNamespace(
        state=engine(migrated_database),
        store=lambda _name: DirectoryStore(tmp_path),
        signer=signer,
        trusted=[signer.public_pem],
    )
    return cast(Services, stub)


def seal_findings(services: Services, findings: list[Finding]) -> tuple[str, str]:
    """Seal a run with findings, and return its DAG id and run id."""
    result = sealed().model_copy(update={"findings": findings})
    with services.state.connect() as conn:
        seal(
            services.store("evidence_store"),
            conn,
            services.signer,
            result=result,
            files={},
            clock=CLOCK,
        )
    return result.run.dag_id, result.run.run_id


def finding(severity: Outcome, subject: str) -> Finding:
    return Finding(
        code="schema.drift.undeclared_table",
        severity=severity,
        subject=subject,
        message=_("The database has a table with {n} columns that is not in the data map.", n=2),
        action=_("Declare it."),
    )


def test_error_text_of_a_failed_run_begins_with_the_table_that_failed_first(
    services: Services,
) -> None:
    """Findings that need attention are skipped.

    The message of a finding does not name the table.
    """
    findings = [
        finding(Outcome.ATTENTION, "courier.public.other"),
        finding(Outcome.FAIL, "courier.public.scratch"),
        finding(Outcome.FAIL, "courier.public.third"),
    ]
    run = seal_findings(services, findings)
    assert result_of(services, *run, "failed", "log").error == (
        "courier.public.scratch: The database has a table with 2 columns that is not in the "
        "data map. Declare it."
    )


def test_error_text_of_a_run_ends_with_the_hint_for_engineers(services: Services) -> None:
    hint = {"for_engineers": _("Edit `datasets.yaml`.")}
    run = seal_findings(services, [finding(Outcome.FAIL, "courier").model_copy(update=hint)])
    error = result_of(services, *run, "failed", "log").error
    assert error is not None
    assert error.endswith("Declare it. Edit `datasets.yaml`.")


def test_run_whose_findings_only_need_attention_has_no_error_text(services: Services) -> None:
    """Findings that need attention are listed only in the report."""
    findings = [finding(Outcome.ATTENTION, "courier.public.other")]
    run = seal_findings(services, findings)
    assert result_of(services, *run, "success", "log").error is None
