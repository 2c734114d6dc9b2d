"""Tests of `enforce_retention` with and without approvals, with holds and erasure requests.

Afterwards an old backup is restored, and the restore repeats the erasures.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.backup import manifest as manifests
from include.backup.drill import DRILL, drill_target, restore_and_compare
from include.backup.offsite import offsite_of
from include.backup.source import Source
from include.composition import build_services
from include.erasure import replay as replays
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.notify.outbox import Run
from include.services.connections import from_environment
from include.workflow.run_context import RunContext
from tests.cli.test_errors import RUN_KEYS
from tests.e2e.conftest import Cli
from tests.e2e.retained import NAME, SUBJECT, WAYBILL, Retained

pytestmark = pytest.mark.airflow

# Older than two years by the sample's timezone, because the server's day begins at another time.
OLD = """
SELECT count(*) FROM waybill
WHERE created_at + interval '2 years' < timestamp '{}' AT TIME ZONE 'Asia/Shanghai'
"""
SUBJECTS = f"""
SELECT (SELECT count(*) FROM customer WHERE customer_id = {SUBJECT})
     + (SELECT count(*) FROM address WHERE customer_id = {SUBJECT})
"""
# So many old accesses that their deletion needs an approval.
LATE = """
INSERT INTO access_log (employee_id, customer_id, purpose, accessed_at)
SELECT employee_id, customer_id, purpose, now() - interval '4 years'
FROM access_log, generate_series(1, 200) ORDER BY access_id LIMIT 200
"""
LATE_LEFT = "SELECT count(*) FROM access_log WHERE accessed_at < now() - interval '3 years'"


def sealed(run: dict[str, Any]) -> dict[str, Any]:
    sealed_result = json.loads((Path(run["bundle"]) / "result.json").read_text())
    assert isinstance(sealed_result, dict)
    return sealed_result


def classes_by_name(planned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {record_class["name"]: record_class for record_class in planned["classes"]}


def plan_preview(cli: Cli, retained: Retained) -> dict[str, Any]:
    words = ["--as-of", retained.as_of.isoformat()]
    return cli.json("retention", "plan", *words, **retained.environment)


def test_approved_retention_run_executes_exactly_the_disposition_plan_of_the_preview(
    cli: Cli, retained: Retained
) -> None:
    """The run has an approval of exactly the plan that `retention plan` showed before."""
    run = retained.run
    assert set(run) == RUN_KEYS
    assert (run["state"], run["error"]) == ("success", None)
    assert run["outcome"] in {"pass", "attention"}
    (approval,) = sealed(run)["approvals"]
    assert (approval["decision"], approval["decided_by"][:2]) == ("Approve", "E0")
    content = (Path(run["bundle"]) / f"plan-{NAME}.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == approval["sha256"]
    assert retained.planned["plan_hash"] == approval["sha256"]
    assert cli.json("verify", run["bundle"])["verified"] is True


def test_approved_run_disposes_of_all_planned_records(cli: Cli, retained: Retained) -> None:
    """The next disposition plan contains no records."""
    before, after = classes_by_name(retained.planned), classes_by_name(plan_preview(cli, retained))
    assert before["electronic_waybill"]["to_delete"] > 100
    assert before["electronic_waybill"]["to_drop_partitions"] > 1
    assert before["waybill_contact"]["to_mask"] > 0
    for record_class in after.values():
        assert (
            record_class["to_delete"],
            record_class["to_mask"],
            record_class["to_drop_partitions"],
        ) == (0, 0, 0)
    assert after["electronic_waybill"]["held"] == 1
    assert retained.single_value(cli, OLD.format(retained.as_of)) == 1
    name = f"SELECT sender_name FROM waybill WHERE waybill_id = {retained.marked}"
    assert "金丝雀" not in retained.single_value(cli, name)


def test_erasure_request_is_closed_after_the_records_are_erased(
    cli: Cli, retained: Retained
) -> None:
    """The run that erased the last record of the data subject closes the request."""
    assert classes_by_name(retained.planned)["customer_record"]["requested"] == 1
    assert retained.single_value(cli, SUBJECTS) == 0
    (request,) = [
        request
        for request in cli.json("erasure", "list", "--all", **retained.environment)["requests"]
        if request["id"] == retained.request["id"]
    ]
    assert request["closed_by"].startswith("enforce_retention ")


@pytest.fixture(scope="module")
def second(cli: Cli, retained: Retained) -> dict[str, Any]:
    """A run without an approval, after the hold was released and many more records expired."""
    with psycopg.connect(cli.postgres(NAME)) as conn:
        conn.execute(LATE)
    assert (
        retained.single_value(cli, f"SELECT count(*) FROM waybill WHERE waybill_id = {WAYBILL}")
        == 1
    )
    words = ["--by", "legal", "--reason", "settled"]
    cli.json("hold", "release", str(retained.hold["id"]), *words, **retained.environment)
    return cli.json("run", "enforce_retention", *retained.conf, code=1, **retained.environment)


def test_record_is_deleted_after_its_legal_hold_is_released(
    cli: Cli, retained: Retained, second: dict[str, Any]
) -> None:
    """The first run kept the record because of the hold."""
    assert retained.single_value(cli, OLD.format(retained.as_of)) == 0


def test_run_without_required_approval_keeps_records_and_fails(
    cli: Cli, retained: Retained, second: dict[str, Any]
) -> None:
    """The run does not wait for an approval. It fails, because expired records remain."""
    assert (second["state"], second["outcome"]) == ("failed", "fail")
    assert retained.single_value(cli, LATE_LEFT) == 200
    result = sealed(second)
    assert result["approvals"] == []
    assert {"retention.nobody", "retention.not_approved", "retention.left"} == {
        finding["code"] for finding in result["findings"]
    }
    unexplained = [
        metric["value"]
        for metric in result["metrics"]
        if metric["name"] == "expired_records_unexplained"
    ]
    assert unexplained == [200]


@pytest.fixture(scope="module")
def restored(cli: Cli, retained: Retained, second: dict[str, Any]) -> dict[str, Any]:
    """The result of restoring the backup from before both runs into a new database."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE branch_restored")
    return cli.json(
        *("restore", "--database", NAME, "--into", cli.postgres("branch_restored")),
        *("--key", "keys/escrow.key"),
        **retained.environment,
    )


def test_restored_copy_of_an_old_backup_has_no_erased_records_and_no_names_of_masked_records(
    cli: Cli, retained: Retained, restored: dict[str, Any]
) -> None:
    """Erased records are absent from the restored copy, and masked ones are masked."""
    assert restored["matches_manifest"] is True
    assert restored["erasures_replayed"] > 100
    assert restored["remasked"] > 0
    with psycopg.connect(cli.postgres("branch_restored")) as conn:
        for query, there in ((SUBJECTS, 0), (OLD.format(retained.as_of), 0)):
            assert conn.execute(query.encode()).fetchone() == (there,)
        query = f"SELECT sender_name FROM waybill WHERE waybill_id = {retained.marked}"
        (name,) = conn.execute(query.encode()).fetchone() or ("",)
    assert name
    assert "金丝雀" not in name


def test_restore_drill_after_retention_run_passes(
    cli: Cli, retained: Retained, restored: dict[str, Any]
) -> None:
    """The drill reports how many erasures it repeated, and finds no erased record afterwards."""
    run = cli.json("run", "drill_restore", **retained.environment)
    assert (run["state"], run["outcome"]) == ("success", "pass")
    (data,) = [step["data"] for step in sealed(run)["steps"] if step["step"] == "drill"]
    assert data["remaining"] == 0
    assert (data["replayed"], data["remasked"]) == (
        restored["erasures_replayed"],
        restored["remasked"],
    )


def test_restore_drill_that_does_not_repeat_erasures_fails(
    cli: Cli, retained: Retained, restored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An independent search finds erased records if the drill does not repeat the erasures."""
    environment = {**cli.environment, **retained.environment}
    services = build_services(
        cli.home,
        Path(retained.environment["PARCELSEAL_POLICY"]),
        lambda conn_id: from_environment(conn_id, environment),
    )
    off = offsite_of(services)
    (point,), _ = manifests.restore_points(off.store, NAME, off.trusted)
    for off_switch in ("erase_staged", "mask_again"):
        monkeypatch.setattr(replays, off_switch, lambda *_: 0)
    findings = StepFindings(DRILL.name, DRILL.clause, NAME)
    drilled = restore_and_compare(
        RunContext(services, None, Run("drill_restore", "without replay")),
        findings,
        Source(off.store, point.manifest, services.drill_key()),
        drill_target(services, services.pack.database(NAME)),
        point.manifest.taken_at,
    )
    sealed_result = findings.record(drilled)
    assert sealed_result.outcome is Outcome.FAIL
    assert "drill.erased_present" in {finding.code for finding in sealed_result.findings}
    # Records that were masked and later deleted count twice.
    assert sealed_result.data["remaining"] >= restored["erasures_replayed"] + restored["remasked"]
