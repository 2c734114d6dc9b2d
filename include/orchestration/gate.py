"""Report a sealed run in the log of the task `gate`, and fail the task if the control failed.

The findings are read from the sealed bundle. XCom has only the path of the bundle, the outcome and
the number of findings.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from include.evidence.bundle_reader import SealedRun, read_sealed
from include.evidence.model import Finding, Outcome
from include.orchestration.addresses import absolute, bundle_path, run_path
from include.orchestration.retry_policy import TaskFailed, is_in_process, reason_of
from include.reports.i18n import Translator
from include.service_container import Services
from include.services.errors import ControlFailed

_log = logging.getLogger(__name__)


def report_sealed_run(live: Services, dag_id: str, run_id: str, sealed: Mapping[str, Any]) -> None:
    """Log every finding of a sealed run with its action, and then the address of the bundle's page.

    Args:
        live: the live services, with the state database and the evidence store.
        dag_id: DAG id of the workflow.
        run_id: Airflow's id of the run.
        sealed: result of `include.orchestration.run.seal_run`.

    Raises:
        TaskFailed: the control failed, or the bundle was changed after the seal. Airflow fails the
            task without a traceback in its log.
    """
    outcome = Outcome(sealed["outcome"])
    could_not_run = False
    address = _address(run_path(dag_id, run_id), str(sealed["bundle"]))
    try:
        run = _read(live, dag_id, run_id)
    except ControlFailed as error:
        _log.error("%s", " ".join(str(error).split()))
        outcome = Outcome.FAIL
    except Exception as error:  # noqa: BLE001 - the outcome is known, and the text may quote a value
        _log.warning("The findings cannot be read now: %s. The bundle has them.", reason_of(error))
    else:
        if run is not None:
            _log_findings(run.result.findings)
            address = _address(bundle_path(run.row.seq), run.row.bundle)
            could_not_run = run.result.could_not_run
    level = logging.ERROR if outcome is Outcome.FAIL else logging.INFO
    words = Translator("en").outcome(outcome, could_not_run=could_not_run)
    _log.log(level, "Outcome: %s. Findings: %s", words, sealed["findings"])
    _log.info("Evidence: %s", address)
    if outcome is Outcome.FAIL:
        raise TaskFailed


def _read(live: Services, dag_id: str, run_id: str) -> SealedRun | None:
    with live.state.connect() as conn:
        return read_sealed(live.store("evidence_store"), conn, live.trusted, dag_id, run_id)


def _log_findings(findings: list[Finding]) -> None:
    translator = Translator("en")
    for finding in findings:
        is_failure = finding.severity is Outcome.FAIL
        level = logging.ERROR if is_failure else logging.WARNING
        _log.log(level, "%s", finding_line(translator, finding))


def finding_line(translator: Translator, finding: Finding) -> str:
    """Return a finding in one line: outcome, code, subject, message and action.

    Args:
        translator: translator of the texts.
        finding: finding of a run.
    """
    words = f"{translator.outcome(finding.severity)}: {translator.finding(finding)}"
    action = f"Action: {translator.text(finding.action)}"
    engineers = ""
    if finding.for_engineers is not None:
        engineers = f"For engineers: {translator.text(finding.for_engineers)}"
    return " ".join(f"{words} {action} {engineers} [{finding.code}]".split())


def _address(path: str, bundle: str) -> str:
    """Return the address of a page, or the bundle's folder if no API server shows the run.

    Args:
        path: path of the page.
        bundle: folder of the bundle, relative to the evidence store.
    """
    return bundle if is_in_process() else absolute(path)
