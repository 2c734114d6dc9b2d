"""Tests of the workflows on databases that resemble those of real systems.

One policy pack contains all of the databases, so each workflow runs once. Queries in plain SQL
count the expected results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from include.cli.config_connect import lacks_retention_rights
from include.registry import load_pack
from include.rights.missing import Login
from include.schema.survey import survey, write_draft
from tests.e2e.conftest import Cli
from tests.e2e.corpus.schemas import AS_OF, MOMENT, SCHEMAS, Schema, complete

pytestmark = pytest.mark.airflow
OWNER = "corpus_owner"
ERASER = "corpus_eraser"
# Rights that the application's triggers need; no check knows them (docs/reference/connections.md).
OF_TRIGGERS = {
    "booking": "GRANT INSERT ON guest_history TO corpus_eraser",
    "crm": 'GRANT INSERT ON "Vertrieb DE"."Änderungsprotokoll" TO corpus_eraser; '
    'GRANT USAGE ON ALL SEQUENCES IN SCHEMA "Vertrieb DE" TO corpus_eraser',
}
TABLES = """
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg_%' AND n.nspname <> 'information_schema'
"""
each = pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)


def count(conninfo: str, query: str) -> int:
    """Return the number that a query in plain SQL counts."""
    with psycopg.connect(conninfo, options="-c timezone=Asia/Shanghai") as connection:
        row = connection.execute(query.replace(":as_of", MOMENT).encode()).fetchone()
    assert row is not None
    return int(row[0])


def count_rows(conninfo: str) -> int:
    """Return the number of rows in all tables of a database.

    Partitioned tables have no rows of their own.
    """
    with psycopg.connect(conninfo) as connection:
        tables = [name for (name,) in connection.execute(TABLES)]
    return sum(count(conninfo, f"SELECT count(*) FROM ONLY {table}") for table in tables)


def result(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sealed result of a run."""
    return dict(json.loads((Path(run["bundle"]) / "result.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Drafted:
    """The databases with a completed policy pack.

    Attributes:
        cli: the command line.
        drafts: folder with a drafted pack for each database.
        environment: environment variables with which commands use the pack and the databases.
    """

    cli: Cli
    drafts: Path
    environment: dict[str, str]

    def of(self, schema: Schema) -> str:
        """Return the connection string of a schema's database."""
        return self.cli.postgres(schema.name)


@dataclass(frozen=True)
class Worked:
    """The results of the workflows, and the counts of plain SQL from before the runs.

    Attributes:
        rows: number of rows of all tables, by database.
        expired: number of expired records, by record class.
        stays: number of expired records that must be kept, by record class.
        broken: number of records that break an expectation, by database and expectation.
        points: restore points, by database.
        drill, quality, retention: results of the runs.
        planned: output of `retention plan` before the retention run, by record class.
    """

    rows: dict[str, int]
    expired: dict[str, int]
    stays: dict[str, int]
    broken: dict[tuple[str, str], int]
    planned: dict[str, dict[str, Any]]
    points: dict[str, dict[str, Any]]
    drill: dict[str, Any]
    quality: dict[str, Any]
    retention: dict[str, Any]


@pytest.fixture(scope="module")
def drafted(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Drafted:
    """The databases with a pack that was drafted for each of them and then completed."""
    drafts, pack = tmp_path_factory.mktemp("drafts"), tmp_path_factory.mktemp("packs") / "corpus"
    environment = {"PARCELSEAL_POLICY": str(pack)}
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {OWNER} LOGIN BYPASSRLS PASSWORD '{OWNER}'".encode())
        for schema in SCHEMAS:
            schema.create(
                admin, OWNER, f"{cli.postgres(schema.name)} user={OWNER} password={OWNER}"
            )
            with psycopg.connect(cli.postgres(schema.name)) as connection:
                write_draft(drafts / schema.name, survey(connection, name=schema.name).files)
            environment[f"AIRFLOW_CONN_{schema.name.upper()}_DB"] = cli.uri(
                schema.name, OWNER, OWNER
            )
    complete(drafts, pack)
    return Drafted(cli, drafts, environment)


@pytest.fixture(scope="module")
def worked(drafted: Drafted) -> Worked:
    """The results of every workflow that needs only a database."""
    cli, environment = drafted.cli, drafted.environment
    rows, expired, stays, broken = {}, {}, {}, {}
    for schema in SCHEMAS:
        conninfo = drafted.of(schema)
        rows[schema.name] = count_rows(conninfo)
        for rule in schema.classes:
            expired[rule["class"]] = count(conninfo, rule["expired"])
            stays[rule["class"]] = count(conninfo, rule.get("stays", "SELECT 0"))
        for number, expectation in enumerate(schema.expectations):
            broken[schema.name, f"added_{number}"] = count(conninfo, expectation["broken"])
    ran(drafted, "backup_offsite")
    listed = cli.json("backup", "list", **environment)["restore_points"]
    drill = ran(drafted, "drill_restore")
    quality = ran(drafted, "check_quality")
    planned = cli.json("retention", "plan", "--as-of", AS_OF, **environment)
    retention = ran(
        drafted,
        "enforce_retention",
        *("--conf", json.dumps({"as_of": AS_OF})),
        **granted_login(drafted),
    )
    return Worked(
        rows=rows,
        expired=expired,
        stays=stays,
        broken=broken,
        planned={entry["name"]: entry for entry in planned["classes"]},
        points={point["database"]: point for point in listed},
        drill=drill,
        quality=quality,
        retention=retention,
    )


def granted_login(drafted: Drafted) -> dict[str, str]:
    """Return the connections of a login that has only the rights that `config check` prints."""
    pack = load_pack(Path(drafted.environment["PARCELSEAL_POLICY"]))
    with psycopg.connect(drafted.cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {ERASER} LOGIN PASSWORD '{ERASER}'".encode())
    connections = {}
    for schema in SCHEMAS:
        connections[f"AIRFLOW_CONN_{schema.name.upper()}_DB"] = drafted.cli.uri(
            schema.name, ERASER, ERASER
        )
        database, rules = pack.database(schema.name), pack.retention_of(schema.name)
        conninfo = drafted.of(schema)
        with psycopg.connect(f"{conninfo} user={ERASER} password={ERASER}") as connection:
            missing = list(lacks_retention_rights(Login(connection), database, rules))
        with psycopg.connect(conninfo) as admin:
            for right in missing:
                admin.execute(right.grant.encode())
            if more := OF_TRIGGERS.get(schema.name):
                admin.execute(more.encode())
    return connections


def ran(drafted: Drafted, workflow: str, *words: str, **connections: str) -> dict[str, Any]:
    """Run a workflow, and return its result whatever the outcome."""
    environment = drafted.environment | connections
    completed = drafted.cli.call("run", workflow, *words, "--json", **environment)
    assert completed.returncode in {0, 1}, completed.stdout + completed.stderr
    return dict(json.loads(completed.stdout))


@each
def test_drafted_data_map_marks_at_least_75_percent_of_the_personal_columns_as_personal(
    drafted: Drafted, schema: Schema
) -> None:
    """Most personal columns are found, and few other columns are marked as personal.

    Columns about which people may disagree do not count.
    """
    text = (drafted.drafts / schema.name / "datamap" / f"{schema.name}.yaml").read_text()
    (dataset,) = yaml.safe_load(text)["dataset"]
    columns = {
        collection["name"]: [field["name"] for field in collection["fields"]]
        for collection in dataset["collections"]
    }
    personal = schema.listed("personal", columns)
    marked = {
        (collection["name"], field["name"])
        for collection in dataset["collections"]
        for field in collection["fields"]
        if field.get("data_categories")
    } - (schema.listed("either", columns) - personal)
    missed, wrong = personal - marked, marked - personal
    assert len(missed) <= 0.25 * len(personal), sorted(missed)
    assert len(wrong) <= 3, sorted(wrong)


def test_config_check_reports_no_problem_in_a_policy_pack_that_was_drafted_and_completed(
    drafted: Drafted,
) -> None:
    """A completed draft has no error."""
    assert drafted.cli.json("config", "check", **drafted.environment)["problems"] == []


@each
def test_backup_has_every_row_and_restored_copy_equals_original(
    worked: Worked, schema: Schema
) -> None:
    """The restore point has as many rows as plain SQL counts, and the drill finds no difference."""
    point = worked.points[schema.name]
    assert point["rows"] == worked.rows[schema.name]
    (step,) = [
        step["data"]
        for step in result(worked.drill)["steps"]
        if step["step"] == "drill" and step["part"] == schema.name
    ]
    assert step["restore_point"] == point["id"]
    findings = [
        finding
        for finding in result(worked.drill)["findings"]
        if finding["subject"].split(".")[0] == schema.name and finding["severity"] == "fail"
    ]
    assert findings == []


@each
def test_check_quality_run_reports_as_many_violations_as_a_plain_sql_query(
    worked: Worked, schema: Schema
) -> None:
    """For every added expectation, both count the records that break it."""
    findings = result(worked.quality)["findings"]
    of_schema = [
        finding for finding in findings if finding["subject"].startswith(f"{schema.name}.")
    ]
    counts = {
        finding["subject"].rpartition(".")[2]: finding["message"]["values"]["broken"]
        for finding in of_schema
        if finding["code"] == "quality.broken"
    }
    assert counts == {
        rule: broken
        for (name, rule), broken in worked.broken.items()
        if name == schema.name and broken
    }
    assert [finding for finding in of_schema if finding["code"] != "quality.broken"] == []


@each
def test_disposition_plan_has_the_same_number_of_expired_records_as_a_plain_sql_query(
    worked: Worked, schema: Schema
) -> None:
    """The plan counts all expired records, and those that no reason keeps."""
    for rule in schema.classes:
        name, planned = rule["class"], worked.planned[rule["class"]]
        assert planned["expired"] == worked.expired[name], name
        goes = 0 if rule["action"] == "keep" else worked.expired[name] - worked.stays[name]
        assert planned["to_delete"] + planned["to_mask"] == goes, name
        assert planned["to_drop_partitions"] == rule.get("dropped", 0), name


@each
def test_retention_run_deletes_all_expired_records_except_those_that_must_be_kept(
    drafted: Drafted, worked: Worked, schema: Schema
) -> None:
    """Afterwards, the only expired records are those that must be kept according to plain SQL."""
    assert worked.retention["state"] == "success"
    for rule in schema.classes:
        if rule["action"] in {"delete", "drop_partition"}:
            left = count(drafted.of(schema), rule["expired"])
            assert left == worked.stays[rule["class"]], rule["class"]
