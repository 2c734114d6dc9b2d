"""`enforce_retention` as people and scripts start it: approved, held, requested, unanswered.

And what comes after it: an old backup is restored, and brings nobody back.
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
from include.composition import new_workplace
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

# Older than two years on a day of the sample's timezone; the server's day begins at another time.
OLD = """
SELECT count(*) FROM waybill
WHERE created_at + interval '2 years' < timestamp '{}' AT TIME ZONE 'Asia/Shanghai'
"""
SUBJECTS = f"""
SELECT (SELECT count(*) FROM customer WHERE customer_id = {SUBJECT})
     + (SELECT count(*) FROM address WHERE customer_id = {SUBJECT})
"""
# Accesses of long ago: so many that they wait for a second person.
LATE = """
INSERT INTO access_log (employee_id, customer_id, purpose, accessed_at)
SELECT employee_id, customer_id, purpose, now() - interval '4 years'
FROM access_log, generate_series(1, 200) ORDER BY access_id LIMIT 200
"""
LATE_LEFT = "SELECT count(*) FROM access_log WHERE accessed_at < now() - interval '3 years'"


def sealed(run: dict[str, Any]) -> dict[str, Any]:
    found = json.loads((Path(run["bundle"]) / "result.json").read_text())
    assert isinstance(found, dict)
    return found


def of(planned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in planned["classes"]}


def looked_ahead(cli: Cli, retained: Retained) -> dict[str, Any]:
    words = ["--as-of", retained.as_of.isoformat()]
    return cli.json("retention", "plan", *words, **retained.environment)


def test_an_approved_run_says_what_it_did(cli: Cli, retained: Retained) -> None:
    """Exit 0, and one approval of exactly the plan that `retention plan` showed before."""
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


def test_what_was_planned_is_gone(cli: Cli, retained: Retained) -> None:
    """The next plan has nothing to do; what the first one counted was all there was."""
    before, after = of(retained.planned), of(looked_ahead(cli, retained))
    assert before["electronic_waybill"]["to_delete"] > 100
    assert before["electronic_waybill"]["to_drop_partitions"] > 1
    assert before["waybill_contact"]["to_mask"] > 0
    for one in after.values():
        assert (one["to_delete"], one["to_mask"], one["to_drop_partitions"]) == (0, 0, 0)
    assert after["electronic_waybill"]["held"] == 1
    assert retained.one(cli, OLD.format(retained.as_of)) == 1
    name = f"SELECT sender_name FROM waybill WHERE waybill_id = {retained.marked}"
    assert "金丝雀" not in retained.one(cli, name)


def test_a_request_erases_its_subject(cli: Cli, retained: Retained) -> None:
    """And is closed, by the run that erased the last record."""
    assert of(retained.planned)["customer_record"]["requested"] == 1
    assert retained.one(cli, SUBJECTS) == 0
    (request,) = [
        one
        for one in cli.json("erasure", "list", "--all", **retained.environment)["requests"]
        if one["id"] == retained.request["id"]
    ]
    assert request["closed_by"].startswith("enforce_retention ")


@pytest.fixture(scope="module")
def second(cli: Cli, retained: Retained) -> dict[str, Any]:
    """A run without an answer, after the hold was released and many records expired."""
    with psycopg.connect(cli.postgres(NAME)) as conn:
        conn.execute(LATE)
    assert retained.one(cli, f"SELECT count(*) FROM waybill WHERE waybill_id = {WAYBILL}") == 1
    words = ["--by", "legal", "--reason", "settled"]
    cli.json("hold", "release", str(retained.hold["id"]), *words, **retained.environment)
    return cli.json("run", "enforce_retention", *retained.conf, code=1, **retained.environment)


def test_a_released_hold_lets_the_next_run_do_its_work(
    cli: Cli, retained: Retained, second: dict[str, Any]
) -> None:
    """What it kept through one run goes in the next."""
    assert retained.one(cli, OLD.format(retained.as_of)) == 0


def test_without_an_answer_what_trips_the_breaker_stays_and_the_run_says_so(
    cli: Cli, retained: Retained, second: dict[str, Any]
) -> None:
    """It waits for nobody; red, since expired records are left that nothing explains."""
    assert (second["state"], second["outcome"]) == ("failed", "fail")
    assert retained.one(cli, LATE_LEFT) == 200
    result = sealed(second)
    assert result["approvals"] == []
    assert {"retention.nobody", "retention.not_approved", "retention.left"} == {
        one["code"] for one in result["findings"]
    }
    unexplained = [
        one["value"] for one in result["metrics"] if one["name"] == "expired_records_unexplained"
    ]
    assert unexplained == [200]


@pytest.fixture(scope="module")
def restored(cli: Cli, retained: Retained, second: dict[str, Any]) -> dict[str, Any]:
    """The backup from before both runs, in a database of its own."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE branch_restored")
    return cli.json(
        *("restore", "--database", NAME, "--into", cli.postgres("branch_restored")),
        *("--key", "keys/escrow.key"),
        **retained.environment,
    )


def test_an_old_backup_brings_nobody_back(
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


def test_a_drill_after_it_is_green(cli: Cli, retained: Retained, restored: dict[str, Any]) -> None:
    """It names the number of erasures that it repeated, and finds no erased record."""
    run = cli.json("run", "drill_restore", **retained.environment)
    assert (run["state"], run["outcome"]) == ("success", "pass")
    (data,) = [one["data"] for one in sealed(run)["steps"] if one["step"] == "drill"]
    assert data["remaining"] == 0
    assert (data["replayed"], data["remasked"]) == (
        restored["erasures_replayed"],
        restored["remasked"],
    )


def test_a_drill_without_the_replay_is_red(
    cli: Cli, retained: Retained, restored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look afterwards finds who was erased; nobody has to trust the replay."""
    environment = {**cli.environment, **retained.environment}
    place = new_workplace(
        cli.home,
        Path(retained.environment["PARCELSEAL_POLICY"]),
        lambda conn_id: from_environment(conn_id, environment),
    )
    off = offsite_of(place)
    (point,), _ = manifests.restore_points(off.store, NAME, off.trusted)
    for off_switch in ("erase", "mask_again"):
        monkeypatch.setattr(replays, off_switch, lambda *_: 0)
    findings = StepFindings(DRILL.name, DRILL.clause, NAME)
    drilled = restore_and_compare(
        RunContext(place, None, Run("drill_restore", "without replay")),
        findings,
        Source(off.store, point.manifest, place.drill_key()),
        drill_target(place, place.pack.database(NAME)),
        point.manifest.taken_at,
    )
    found = findings.record(drilled)
    assert found.outcome is Outcome.FAIL
    assert "drill.erased_present" in {one.code for one in found.findings}
    # What was masked first and deleted later is back twice.
    assert found.data["remaining"] >= restored["erasures_replayed"] + restored["remasked"]
