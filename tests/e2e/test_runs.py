"""Tests of complete runs that are started from the command line, as people and scripts do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select

from include.policy import SHIPPED
from include.state.tables import erasure, erasure_batch
from tests.cli.test_errors import RUN_KEYS
from tests.e2e import databases
from tests.e2e.conftest import Cli, FailedRuns
from tests.erasure.support import record
from tests.support.registers import unguarded

pytestmark = pytest.mark.airflow

POINT_KEYS = {
    "id",
    "database",
    "taken_at",
    "bytes",
    "tables",
    "rows",
    "recipients",
    "held",
    "hidden",
    "copy",
    "expires_at",
}
RESTORE_KEYS = {
    "restore_point",
    "tables",
    "rows",
    "seconds",
    "erasures_replayed",
    "remasked",
    "matches_manifest",
    "left_out",
    "checked_by",
    "opened",
}


def findings(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the findings that a run sealed."""
    sealed_findings = json.loads((Path(run["bundle"]) / "result.json").read_text())["findings"]
    assert len(sealed_findings) == run["findings"]
    return list(sealed_findings)


def codes(run: dict[str, Any], subject: str) -> set[str]:
    """Return the codes of a run's failures that concern a database."""
    return {
        finding["code"]
        for finding in findings(run)
        if finding["severity"] == "fail" and subject in finding["subject"]
    }


def empty_database(cli: Cli, name: str) -> str:
    """Create a database for a restore and return its connection string."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name}")
        conn.execute(f"CREATE DATABASE {name}")
    return cli.postgres(name)


def rows(conninfo: str, tables: dict[str, int]) -> dict[str, int]:
    """Return the number of rows of each table."""
    with psycopg.connect(conninfo) as conn:
        counts = {
            table: conn.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables
        }
    return {table: count[0] for table, count in counts.items() if count}


@pytest.mark.parametrize(("name", "outcome"), [("backed_up", "attention"), ("drilled", "pass")])
def test_command_run_prints_outcome_number_of_findings_and_report_files(
    name: str, outcome: str, request: pytest.FixtureRequest
):
    """The backup needs attention, because the store is on the same disk as the sample database."""
    run = request.getfixturevalue(name)
    assert set(run) == RUN_KEYS
    assert (run["state"], run["outcome"], run["error"]) == ("success", outcome, None)
    assert len(findings(run)) == run["findings"]
    assert {Path(report).name for report in run["reports"]} >= {
        "report.en.html",
        "report.zh-CN.html",
    }
    for report in run["reports"]:
        assert Path(report).is_file()
        assert Path(report).parent == Path(run["bundle"])


def test_backup_list_prints_restore_points(cli: Cli, backed_up: dict[str, Any]):
    """The JSON object has all documented keys."""
    (point,) = cli.json("backup", "list", "--database", "courier")["restore_points"]
    assert set(point) == POINT_KEYS
    assert point["database"] == "courier"
    assert point["recipients"] == ["operations", "escrow", "drill"]
    assert point["held"] is False
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    assert point["rows"] == sum(sheet["tables"].values())


def test_command_restore_restores_all_rows_and_fails_if_the_target_database_is_not_empty(
    cli: Cli, drilled: dict[str, Any]
):
    """The target must be an empty database, so a second restore into it is refused."""
    target = empty_database(cli, "courier_restored")
    words = ["--database", "courier", "--into", target, "--key", "keys/escrow.key"]
    completed = cli.json("restore", *words)
    assert set(completed) == RESTORE_KEYS
    assert completed["matches_manifest"] is True
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    assert completed["rows"] == sum(sheet["tables"].values())
    assert rows(target, sheet["tables"]) == sheet["tables"]
    assert "is not empty" in cli.json("restore", *words, code=2)["error"]


def test_backup_of_another_database_needs_only_a_connection_and_a_policy_pack(
    cli: Cli, library: dict[str, str], tmp_path: Path
):
    """A database with another schema is backed up, drilled, listed and restored."""
    assert cli.json("run", "backup_offsite", **library)["outcome"] == "attention"
    drill = cli.json("run", "drill_restore", **library)
    assert (drill["outcome"], drill["findings"]) == ("pass", 0)
    (point,) = cli.json("backup", "list", **library)["restore_points"]
    assert (point["database"], point["rows"]) == ("library", sum(databases.LIBRARY_ROWS.values()))
    target = empty_database(cli, "library_restored")
    words = ["--database", "library", "--into", target, "--key", "keys/operations.key"]
    completed = cli.json("restore", *words, "--point", point["id"], **library)
    assert completed["matches_manifest"] is True
    assert rows(target, databases.LIBRARY_ROWS) == databases.LIBRARY_ROWS


def test_backup_does_not_import_great_expectations(cli: Cli, library: dict[str, str]):
    """The import takes seconds and 150 MB, so only steps that check records may need it."""
    # With an Airflow variable, the command runs in a new process that has imported nothing yet.
    alone = {"PYTHONPROFILEIMPORTTIME": "1", "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"}
    completed = cli.call("run", "backup_offsite", "--json", **library, **alone)
    assert json.loads(completed.stdout)["outcome"] == "attention"
    # From the import of Airflow on, the output goes to the log.
    log = max(
        (cli.home / "logs").glob("run-backup_offsite-*.log"), key=lambda path: path.stat().st_mtime
    )
    imported = re.findall(r"\| +(\S+)$", completed.stderr + log.read_text(), re.MULTILINE)
    assert "include.encryption.keyrings" in imported
    assert [name for name in imported if name.startswith("great_expectations")] == []


def test_failed_run_is_sealed_and_prints_its_error_in_a_single_line(failed: FailedRuns):
    """The bundle states the cause of the failure, and the command prints it in one line."""
    for run in (failed.backup, failed.drill):
        assert set(run) == RUN_KEYS
        assert (run["state"], run["outcome"]) == ("failed", "fail")
        assert (Path(run["bundle"]) / "SHA256SUMS.sig").is_file()
        assert run["error"]
        assert "\n" not in run["error"]


def test_other_databases_are_backed_up_if_the_backup_of_one_database_fails(failed: FailedRuns):
    """A finding names the database.

    The restore points of all others are made, pruned and signed.
    """
    for name in ("clockless", "homeless"):
        assert codes(failed.backup, name) == {"backup.failed"}
    assert "AIRFLOW_CONN_HOMELESS_DB" in json.dumps(findings(failed.backup))
    for name in set(databases.FAULTY) - {"clockless", "homeless"}:
        assert codes(failed.backup, name) == set()
        assert (Path(failed.backup["bundle"]) / f"manifest.{name}.json").is_file()


@pytest.mark.parametrize(
    ("database", "step", "words"),
    [
        ("tampered", "", "database.dump.zst.enc"),
        ("unloadable", "drill.check_constraint", "check constraint"),
        ("homeless", "choose.failed", "no restore point"),
        ("forged", "choose.failed", "signature does not fit"),
    ],
)
def test_finding_of_failed_restore_drill_contains_the_cause_of_the_failure(
    failed: FailedRuns, database: str, step: str, words: str
):
    """Causes: a damaged object, a changed manifest, an unloadable dump, a missing backup."""
    assert codes(failed.drill, database)
    if step:
        assert step in codes(failed.drill, database)
    message = [
        finding["message"] for finding in findings(failed.drill) if database in finding["subject"]
    ]
    assert words in json.dumps(message)


def test_restore_drill_needs_no_connection_to_the_original_database(
    failed: FailedRuns,
) -> None:
    """The drill passes even if restore points of other databases fail."""
    assert codes(failed.drill, "sound") == set()
    metrics = json.loads((Path(failed.drill["bundle"]) / "result.json").read_text())["metrics"]
    assert "sound" in {
        metric["subject"] for metric in metrics if metric["name"] == "drill.rto_seconds"
    }


def test_restore_fails_if_the_mapped_table_of_erased_records_is_missing_in_the_restored_copy(
    cli: Cli, drilled: dict[str, Any], tmp_path: Path
):
    """In the restore point, the table has an older name than in the data map."""
    pack = shutil.copytree(SHIPPED, tmp_path / "pack")
    datamap = pack / "datamap" / "courier.yaml"
    text = datamap.read_text()
    datamap.write_text(
        text.replace("  share_log:\n", "  share_log:\n            table: share_record\n", 1)
    )
    target = empty_database(cli, "courier_renamed")
    words = ["--database", "courier", "--into", target, "--key", "keys/escrow.key"]
    with cli.services.state.begin() as conn:
        record(
            conn,
            cli.services.erasure_keys,
            database="courier",
            collection="share_log",
            record_keys=[["1"]],
            record_class="share",
            rule="retention",
            dag_id="d",
            run_id="renamed",
            erased_at=cli.services.clock.now(),
        )
    try:
        completed = cli.json("restore", *words, code=1, PARCELSEAL_POLICY=str(pack))
    finally:
        with cli.services.state.begin() as conn:
            test_batches = select(erasure_batch.c.id).where(erasure_batch.c.run_id == "renamed")
            with unguarded(conn, "erasure", "erasure_batch"):
                conn.execute(erasure.delete().where(erasure.c.batch_id.in_(test_batches)))
                conn.execute(erasure_batch.delete().where(erasure_batch.c.run_id == "renamed"))
    assert "share_log" in completed["error"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "backup_offsite", "--conf", '{"databases": "x"}'], 2, "databases"),
        (["run", "backup_offsite", "--conf", '{"databases": ["curier"]}'], 2, "curier"),
        (["run", "drill_restore", "--answer", "gate=Approve"], 2, "not a human step"),
        (["backup", "list", "--database", "nope"], 2, "courier"),
        (["restore", "--database", "courier", "--into", "x=y", "--key", "k"], 2, "address"),
    ],
)
def test_command_with_invalid_argument_exits_with_2_and_prints_the_reason(
    cli: Cli, words: list[str], code: int, message: str
):
    """The error names the wrong argument before a run is created."""
    assert message in cli.json(*words, code=code)["error"]


@pytest.mark.parametrize(
    ("variable", "value", "words", "code", "message"),
    [
        ("STATE_DB", "{not json", ["backup", "list"], 0, ""),
        ("STATE_DB", "{not json", ["verify", "--all"], 2, "state_db"),
        ("STATE_DB", "mysql://a:sesame@b/c", ["verify", "--all"], 2, "not postgres"),
        ("STATE_DB", "WRONG", ["verify", "--all"], 2, "state_db"),
        (
            "STATE_DB",
            "postgresql://a:sesame@127.0.0.1:1/c",
            ["verify", "--all"],
            3,
            "state_db",
        ),
        ("OFFSITE_STORE", '{"conn_type": "fs"}', ["backup", "list"], 2, "offsite_store"),
    ],
)
def test_error_about_an_invalid_connection_contains_no_password_and_no_traceback(
    cli: Cli,
    backed_up: dict[str, Any],
    variable: str,
    value: str,
    words: list[str],
    code: int,
    message: str,
):
    """The error has the name of the connection, but not its settings."""
    if value == "WRONG":
        value = cli.uri("parcelseal_state", "parcelseal_state", "sesame")
    completed = cli.call(*words, "--json", **{f"AIRFLOW_CONN_{variable}": value})
    assert completed.returncode == code, completed.stderr
    assert "sesame" not in completed.stdout + completed.stderr
    assert "Traceback" not in completed.stderr
    if message:
        assert message in json.loads(completed.stdout)["error"]
