"""Whole runs from the command line, as people and scripts start them."""

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
    """The findings that a run sealed."""
    found = json.loads((Path(run["bundle"]) / "result.json").read_text())["findings"]
    assert len(found) == run["findings"]
    return list(found)


def codes(run: dict[str, Any], subject: str) -> set[str]:
    """What was found about one database, failures only."""
    return {
        one["code"]
        for one in findings(run)
        if one["severity"] == "fail" and subject in one["subject"]
    }


def empty_database(cli: Cli, name: str) -> str:
    """Create a database for a restore and return its connection string."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name}")
        conn.execute(f"CREATE DATABASE {name}")
    return cli.postgres(name)


def rows(conninfo: str, tables: dict[str, int]) -> dict[str, int]:
    """Count tables."""
    with psycopg.connect(conninfo) as conn:
        counts = {
            table: conn.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables
        }
    return {table: count[0] for table, count in counts.items() if count}


@pytest.mark.parametrize(("name", "outcome"), [("backed_up", "attention"), ("drilled", "pass")])
def test_a_run_says_what_it_did(name: str, outcome: str, request: pytest.FixtureRequest):
    """The sample is backed up on its own disk, which is not off-site; its drill passes."""
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


def test_restore_points_are_listed(cli: Cli, backed_up: dict[str, Any]):
    """With everything the contract names."""
    (point,) = cli.json("backup", "list", "--database", "courier")["restore_points"]
    assert set(point) == POINT_KEYS
    assert point["database"] == "courier"
    assert point["recipients"] == ["operations", "escrow", "drill"]
    assert point["held"] is False
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    assert point["rows"] == sum(sheet["tables"].values())


def test_the_sample_is_restored_for_real(cli: Cli, drilled: dict[str, Any]):
    """Into a new database, with the escrow key, and once only."""
    target = empty_database(cli, "courier_restored")
    words = ["--database", "courier", "--into", target, "--key", "keys/escrow.key"]
    done = cli.json("restore", *words)
    assert set(done) == RESTORE_KEYS
    assert done["matches_manifest"] is True
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    assert done["rows"] == sum(sheet["tables"].values())
    assert rows(target, sheet["tables"]) == sheet["tables"]
    assert "is not empty" in cli.json("restore", *words, code=2)["error"]


def test_another_database_needs_a_connection_and_a_pack_only(
    cli: Cli, library: dict[str, str], tmp_path: Path
):
    """A schema nobody here designed is backed up, drilled, listed and restored."""
    assert cli.json("run", "backup_offsite", **library)["outcome"] == "attention"
    drill = cli.json("run", "drill_restore", **library)
    assert (drill["outcome"], drill["findings"]) == ("pass", 0)
    (point,) = cli.json("backup", "list", **library)["restore_points"]
    assert (point["database"], point["rows"]) == ("library", sum(databases.LIBRARY_ROWS.values()))
    target = empty_database(cli, "library_restored")
    words = ["--database", "library", "--into", target, "--key", "keys/operations.key"]
    done = cli.json("restore", *words, "--point", point["id"], **library)
    assert done["matches_manifest"] is True
    assert rows(target, databases.LIBRARY_ROWS) == databases.LIBRARY_ROWS


def test_a_backup_does_not_import_great_expectations(cli: Cli, library: dict[str, str]):
    """Only a step that checks records pays for its import: seconds, and 150 MB."""
    # A variable of Airflow makes a process of its own, which has imported nothing before.
    alone = {"PYTHONPROFILEIMPORTTIME": "1", "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"}
    done = cli.call("run", "backup_offsite", "--json", **library, **alone)
    assert json.loads(done.stdout)["outcome"] == "attention"
    # Airflow's words, and Python's after them, go to the log.
    log = max(
        (cli.home / "logs").glob("run-backup_offsite-*.log"), key=lambda path: path.stat().st_mtime
    )
    imported = re.findall(r"\| +(\S+)$", done.stderr + log.read_text(), re.MULTILINE)
    assert "include.encryption.keyrings" in imported
    assert [name for name in imported if name.startswith("great_expectations")] == []


def test_a_failed_run_is_red_and_sealed(failed: FailedRuns):
    """There is a bundle that says why, and one line of it on the command line."""
    for run in (failed.backup, failed.drill):
        assert set(run) == RUN_KEYS
        assert (run["state"], run["outcome"]) == ("failed", "fail")
        assert (Path(run["bundle"]) / "SHA256SUMS.sig").is_file()
        assert run["error"]
        assert "\n" not in run["error"]


def test_one_database_that_cannot_be_backed_up_does_not_touch_the_others(failed: FailedRuns):
    """Its finding names it; every other restore point was made, pruned and signed."""
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
        ("unloadable", "drill.check_constraint", "CHECK constraint"),
        ("homeless", "choose.failed", "no restore point"),
        ("forged", "choose.failed", "signature does not fit"),
    ],
)
def test_a_drill_names_what_is_wrong(failed: FailedRuns, database: str, step: str, words: str):
    """A damaged object by its key, a changed manifest, a copy that does not load, no backup."""
    assert codes(failed.drill, database)
    if step:
        assert step in codes(failed.drill, database)
    said = [one["message"] for one in findings(failed.drill) if database in one["subject"]]
    assert words in json.dumps(said)


def test_drill_of_a_sound_restore_point_passes_without_connections_of_databases(
    failed: FailedRuns,
) -> None:
    """Also if restore points of other databases fail."""
    assert codes(failed.drill, "sound") == set()
    metrics = json.loads((Path(failed.drill["bundle"]) / "result.json").read_text())["metrics"]
    assert "sound" in {one["subject"] for one in metrics if one["name"] == "drill.rto_seconds"}


def test_erased_records_that_cannot_be_looked_for_fail_a_restore(
    cli: Cli, drilled: dict[str, Any], tmp_path: Path
):
    """The data map has a table's name of today; the restore point holds it under another."""
    pack = shutil.copytree(SHIPPED, tmp_path / "pack")
    datamap = pack / "datamap" / "courier.yaml"
    text = datamap.read_text()
    datamap.write_text(text.replace("share_log: {", "share_log: {table: share_record, ", 1))
    target = empty_database(cli, "courier_renamed")
    words = ["--database", "courier", "--into", target, "--key", "keys/escrow.key"]
    with cli.place.state.begin() as conn:
        record(
            conn,
            cli.place.erasure_keys,
            database="courier",
            collection="share_log",
            record_keys=[["1"]],
            record_class="share",
            rule="retention",
            dag_id="d",
            run_id="renamed",
            erased_at=cli.place.clock.now(),
        )
    try:
        done = cli.json("restore", *words, code=1, PARCELSEAL_POLICY=str(pack))
    finally:
        with cli.place.state.begin() as conn:
            mine = select(erasure_batch.c.id).where(erasure_batch.c.run_id == "renamed")
            with unguarded(conn, "erasure", "erasure_batch"):
                conn.execute(erasure.delete().where(erasure.c.batch_id.in_(mine)))
                conn.execute(erasure_batch.delete().where(erasure_batch.c.run_id == "renamed"))
    assert "share_log" in done["error"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "backup_offsite", "--conf", '{"databases": "x"}'], 2, "databases"),
        (["run", "backup_offsite", "--conf", '{"databases": ["curier"]}'], 2, "curier"),
        (["run", "drill_restore", "--answer", "gate=Approve"], 2, "no human step"),
        (["backup", "list", "--database", "nope"], 2, "courier"),
        (["restore", "--database", "courier", "--into", "x=y", "--key", "k"], 2, "address"),
    ],
)
def test_a_wrong_word_is_refused(cli: Cli, words: list[str], code: int, said: str):
    """Before a run is made; what is wrong stands in the error."""
    assert said in cli.json(*words, code=code)["error"]


@pytest.mark.parametrize(
    ("variable", "value", "words", "code", "said"),
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
def test_a_wrong_connection_is_named_without_its_password(
    cli: Cli,
    backed_up: dict[str, Any],
    variable: str,
    value: str,
    words: list[str],
    code: int,
    said: str,
):
    """The connection stands in the error; what it holds does not."""
    if value == "WRONG":
        value = cli.uri("parcelseal_state", "parcelseal_state", "sesame")
    done = cli.call(*words, "--json", **{f"AIRFLOW_CONN_{variable}": value})
    assert done.returncode == code, done.stderr
    assert "sesame" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if said:
        assert said in json.loads(done.stdout)["error"]
