"""The result of a run, as `run` and `up` show it: from its sealed bundle, not from Airflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.services.errors import ControlFailed, ParcelSealError
from include.workplace import Workplace

if TYPE_CHECKING:
    from include.evidence.model import Finding


@dataclass(frozen=True)
class RunResult:
    """The result of a run. All names except ``cause`` are stable keys of the ``--json`` output.

    Attributes:
        cause: an error that failed every instance of a task; None if there is no such error.
    """

    dag_id: str
    run_id: str | None
    state: str | None
    outcome: str | None
    bundle: str | None
    reports: list[str]
    findings: int
    error: str | None
    cause: ParcelSealError | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return {name: value for name, value in vars(self).items() if name != "cause"}


def result_of(place: Workplace, dag_id: str, run_id: str, state: str, log: str) -> RunResult:
    """Return the sealed result of a run; without outcome if the bundle is missing or changed."""
    from include.evidence.model import Outcome
    from include.evidence.shelf import read_sealed

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
        reports=[f"{base}/{name}" for name in sorted(sealed.digests) if name.startswith("report.")],
        findings=len(findings),
        error=_line(failing[0]) if failing else None,
    )


def exit_code(done: RunResult) -> int:
    """Return the exit code of a run.

    Returns:
        0 if the control passed, 1 if it failed, 2 if a configuration error prevented a part of the
        work, 3 if a service failed or there is no evidence.
    """
    if done.outcome in {"pass", "attention"} and done.state == "success":
        return 0
    if done.cause is not None:
        return done.cause.exit_code
    return 3 if done.outcome is None else 1


def _line(finding: Finding) -> str:
    from include.reports.i18n import Translator

    translator = Translator("en")
    message = translator.finding(finding).strip()
    if not message.endswith((".", ":", "!", "?")):
        message += "."
    return " ".join(f"{message} {translator.text(finding.action)}".split())
