"""The result of a run, as `run` and `up` show it: from its sealed bundle, not from Airflow."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from include.services.errors import ControlFailed
from include.workplace import Workplace

if TYPE_CHECKING:
    from include.evidence.model import Finding


@dataclass(frozen=True)
class RunResult:
    """One run. The names are those of the ``--json`` output and stay stable."""

    dag_id: str
    run_id: str | None
    state: str | None
    outcome: str | None
    bundle: str | None
    reports: list[str]
    findings: int
    error: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return asdict(self)


def result_of(place: Workplace, dag_id: str, run_id: str, state: str, log: str) -> RunResult:
    """Return what a run sealed; without an outcome when there is no bundle, or it was changed."""
    from include.evidence.model import Outcome
    from include.evidence.sealed import read_sealed

    store = place.store("evidence_store")
    try:
        with place.state.connect() as conn:
            sealed = read_sealed(store, conn, place.trusted, dag_id, run_id)
    except ControlFailed as refusal:
        return RunResult(dag_id, run_id, state, None, None, [], 0, str(refusal))
    if sealed is None:
        return RunResult(
            dag_id, run_id, state, None, None, [], 0, f"The run left no bundle. See {log}."
        )
    base = f"{store.description.rstrip('/')}/{sealed.row.bundle}"
    findings = sealed.result.findings
    failing = [finding for finding in findings if finding.severity is Outcome.FAIL]
    return RunResult(
        dag_id=dag_id,
        run_id=run_id,
        state=state,
        outcome=str(sealed.result.outcome),
        bundle=base,
        reports=[f"{base}/{name}" for name in sorted(sealed.files) if name.startswith("report.")],
        findings=len(findings),
        error=_line(failing[0]) if failing else None,
    )


def exit_code(done: RunResult) -> int:
    """Return 0 when the control held, 1 when it failed, 3 when there is no evidence."""
    if done.outcome is None:
        return 3
    return 0 if done.outcome in {"pass", "attention"} and done.state == "success" else 1


def _line(finding: Finding) -> str:
    from include.reports.i18n import Translator

    return " ".join(Translator("en").finding(finding).split())
