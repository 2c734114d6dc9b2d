"""Tests of `check_quality` on the sample, and on a database with a drafted data map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.conftest import Cli

pytestmark = pytest.mark.airflow

CHINOOK = Path(__file__).parents[1] / "schema" / "chinook.sql"
CONTRACT = {"dag_id", "run_id", "state", "outcome", "bundle", "reports", "findings", "error"}


def result(run: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads((Path(run["bundle"]) / "result.json").read_text()))


def collections(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (step,) = [step for step in result(run)["steps"] if step["step"] == "check"]
    return {collection["collection"]: collection for collection in step["data"]["collections"]}


def test_check_quality_run_fails_and_is_sealed_if_the_sample_has_quality_violations(
    cli: Cli, checked: dict[str, Any]
):
    """Violations that an expectation tolerates are in the report's table, but are not findings."""
    assert set(checked) == CONTRACT
    assert (checked["state"], checked["outcome"]) == ("failed", "fail")
    subjects = {finding["subject"] for finding in result(checked)["findings"]}
    assert {"courier.customer.no_reviewer", "courier.customer.reviewer_is_enterer"} <= subjects
    states = {control["id"]: control["state"] for control in result(checked)["controls"]}
    assert states["collect.accuracy"] == "not_held"
    assert states["collect.declared"] == "held"
    assert states["collect.minimum"] in {"held", "not_held"}  # depends on the size of the sample
    names = {path.name for path in Path(checked["bundle"]).iterdir()}
    assert "datadocs.courier.customer.html" in names
    assert {"report.en.html", "report.zh-CN.html"} <= names


def test_quarantine_has_as_many_records_as_there_are_deliberate_quality_violations(
    cli: Cli, checked: dict[str, Any]
):
    """The quarantine contains each record with a deliberate violation, and no other record."""
    planted = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())["planted"]
    with psycopg.connect(cli.postgres("parcelseal_state")) as conn:
        counts = dict(
            conn.execute(
                "SELECT rule, count(*) FROM quarantine WHERE database = 'courier' AND collection"
                " <> 'intake_record' AND resolved_at IS NULL GROUP BY rule"
            ).fetchall()
        )
    assert counts == {rule: planted[rule]["count"] for rule in counts}
    assert len(counts) >= 5


def test_second_quality_check_reads_only_changed_records_if_the_table_has_a_change_column(
    cli: Cli, checked: dict[str, Any]
):
    """Records that are already in quarantine stay there."""
    again = cli.json("run", "check_quality", code=1)
    before, after = collections(checked), collections(again)
    assert before["customer"]["whole"]
    assert not after["customer"]["whole"]
    assert after["customer"]["looked_at"] < before["customer"]["rows"] / 5
    assert before["address"]["whole"]
    assert after["address"]["whole"]  # the table has no change column
    figures = [
        [{**rule, "examined": ""} for rule in sealed["customer"]["rules"]]
        for sealed in (before, after)
    ]
    assert figures[0] == figures[1]


def test_check_quality_with_a_drafted_policy_pack_finds_no_violation_and_needs_attention(
    cli: Cli, tmp_path: Path
):
    """`config map` drafts a pack for Chinook, and its records meet the default expectations.

    The drafted expectations are not required until a person says so. Until then, the control of
    accuracy has no evidence.
    """
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE drafted_chinook")
        admin.execute("CREATE ROLE drafted_reader LOGIN PASSWORD 'reader'")
        admin.execute("GRANT pg_read_all_data TO drafted_reader")
    with psycopg.connect(cli.postgres("drafted_chinook")) as conn:
        conn.execute(CHINOOK.read_bytes())
    address = cli.uri("drafted_chinook", "drafted_reader", "reader")
    pack = tmp_path / "pack"
    drafted = cli.call("config", "map", "--dsn", address, "--out", str(pack), "--name", "chinook")
    assert drafted.returncode == 0, drafted.stderr
    environment = {"AIRFLOW_CONN_CUSTOMER_DB": address, "PARCELSEAL_POLICY": str(pack)}
    assert cli.call("config", "check", **environment).returncode == 0
    run = cli.json("run", "check_quality", **environment)
    sealed = result(run)
    assert run["outcome"] == "attention"
    assert {finding["code"] for finding in sealed["findings"]} == {"control.not_shown"}
    assert {control["id"]: control["state"] for control in sealed["controls"]} == {
        "collect.accuracy": "not_shown",
        "collect.minimum": "held",
        "collect.declared": "held",
    }
    assert set(collections(run)) >= {"customer", "employee", "invoice"}
