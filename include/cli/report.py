"""Read the result of a run from its sealed bundle, for the commands `run` and `up`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.service_container import Services
from include.services.errors import ControlFailed, ParcelSealError

if TYPE_CHECKING:
    from include.evidence.model import Finding


@dataclass(frozen=True)
class RunResult:
    """The result of a run. The attributes up to ``error`` are the keys of the ``--json`` output.

    Attributes:
        dag_id: DAG id of the workflow.
        run_id: id of the run; None if the run was refused.
        state: Airflow's state of the run; None if the run was refused.
        outcome: control outcome in the evidence bundle; None if the run has no valid bundle.
        bundle: location of the evidence bundle; None if the run has no valid bundle.
        reports: locations of the report files.
        findings: number of findings.
        error: text of the first finding that made the control fail, or the reason why the run has
            no valid bundle; None if there is neither.
        cause: error of a failed task that has no successful task instance, or of the task `seal`;
            None if the run has no such task.
        could_not_run: whether the run did nothing, because it was refused, its inputs were wrong,
            or the policy pack lacks the rules.
        reason: message of the first finding, failures first; empty if there is no finding.
        number: sequence number of the bundle in the evidence ledger; None if there is no bundle.
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
    could_not_run: bool = False
    reason: str = ""
    number: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the result as a JSON object. The keys are the names of the attributes."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_IN_JSON}

    @property
    def words(self) -> str:
        """The outcome in the words of the glossary, such as "Needs attention"."""
        from include.evidence.model import Outcome
        from include.reports.i18n import Translator

        if self.outcome is None:
            return "no evidence"
        outcome = Outcome(self.outcome)
        return Translator("en").outcome(outcome, could_not_run=self.could_not_run)


_NOT_IN_JSON = {"cause", "could_not_run", "reason", "number"}


def result_of(services: Services, dag_id: str, run_id: str, state: str, log: str) -> RunResult:
    """Return the result of a run from its evidence bundle.

    If the bundle is missing or changed, the result has no outcome, and its `error` states the
    reason.

    Args:
        services: connections and policy pack.
        dag_id: DAG id of the workflow.
        run_id: id of the run.
        state: Airflow's state of the run.
        log: path of the log file, for the error message.
    """
    from include.evidence.bundle_reader import read_sealed
    from include.evidence.model import Outcome

    store = services.store("evidence_store")
    try:
        with services.state.connect() as conn:
            sealed = read_sealed(store, conn, services.trusted, dag_id, run_id)
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
        could_not_run=sealed.result.could_not_run,
        reason=_reason([*failing, *findings][0]) if findings else "",
        number=sealed.row.seq,
    )


def exit_code(done: RunResult) -> int:
    """Return the exit code of the command for the result of a run.

    Returns:
        0 if the control passed or needs attention, 1 if it failed, 2 if a configuration error
        stopped a part of the run, 3 if a service failed or the run left no evidence.
    """
    if done.outcome in {"pass", "attention"} and done.state == "success":
        return 0
    if done.cause is not None:
        return done.cause.exit_code
    return 3 if done.outcome is None else 1


def _reason(finding: Finding) -> str:
    from include.reports.i18n import Translator

    return " ".join(Translator("en").finding(finding).split())


def _line(finding: Finding) -> str:
    from include.reports.i18n import Translator

    translator = Translator("en")
    message = translator.finding(finding).strip()
    if not message.endswith((".", ":", "!", "?")):
        message += "."
    parts = [message, translator.text(finding.action)]
    if finding.for_engineers:
        parts.append(translator.text(finding.for_engineers))
    return " ".join(" ".join(parts).split())
