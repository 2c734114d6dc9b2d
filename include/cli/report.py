"""The result of a run, as `run` and `up` show it: from its sealed bundle, not from Airflow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from include.workplace import Workplace


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
    """Read what a run sealed."""
    from include.evidence import ledger

    with place.state.connect() as conn:
        row = ledger.find(conn, dag_id, run_id)
    if row is None:
        return RunResult(
            dag_id, run_id, state, None, None, [], 0, f"The run left no bundle. See {log}."
        )
    store = place.store("evidence_store")
    result = json.loads(store.get(f"{row.bundle}/result.json"))
    names = sorted(
        Path(one.key).name for one in store.list(f"{row.bundle}/") if "/report." in one.key
    )
    base = f"{store.description.rstrip('/')}/{row.bundle}"
    failing = [one for one in result["findings"] if one["severity"] == "fail"]
    return RunResult(
        dag_id=dag_id,
        run_id=run_id,
        state=state,
        outcome=row.outcome,
        bundle=base,
        reports=[f"{base}/{name}" for name in names],
        findings=len(result["findings"]),
        error=_line(failing[0]) if failing else None,
    )


def exit_code(done: RunResult) -> int:
    """Return 0 when the control held, 1 when it failed, 3 when there is no evidence."""
    if done.outcome is None:
        return 3
    return 0 if done.outcome in {"pass", "attention"} and done.state == "success" else 1


def _line(finding: dict[str, Any]) -> str:
    from include.evidence.model import Finding
    from include.reports.i18n import Translator

    return " ".join(Translator("en").finding(Finding.model_validate(finding)).split())
