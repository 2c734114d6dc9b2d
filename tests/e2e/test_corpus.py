"""Databases as strangers have them: drafted, completed, backed up, restored, checked, disposed of.

One pack has all of them, so each workflow runs once. Queries of plain SQL count what it should
find.
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
# Rights of the application's triggers, which no check can know (docs/connections.md).
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
    """Return the figure of a query of the oracle."""
    with psycopg.connect(conninfo, options="-c timezone=Asia/Shanghai") as connection:
        row = connection.execute(query.replace(":as_of", MOMENT).encode()).fetchone()
    assert row is not None
    return int(row[0])


def count_rows(conninfo: str) -> int:
    """Return the rows of all tables of a database; partitioned tables have none of their own."""
    with psycopg.connect(conninfo) as connection:
        tables = [name for (name,) in connection.execute(TABLES)]
    return sum(count(conninfo, f"SELECT count(*) FROM ONLY {table}") for table in tables)


def result(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sealed result of a run."""
    return dict(json.loads((Path(run["bundle"]) / "result.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Drafted:
    """The databases with one completed pack.

    Attributes:
        cli: the command line.
        drafts: folder of each schema's draft.
        environment: points every command at the pack and its databases.
    """

    cli: Cli
    drafts: Path
    environment: dict[str, str]

    def of(self, schema: Schema) -> str:
        """Return the connection string of a schema's database."""
        return self.cli.postgres(schema.name)


@dataclass(frozen=True)
class Worked:
    """What the workflows sealed, and the oracle's figures from before them.

    Attributes:
        rows: of all tables, by schema.
        expired: by class, expired records.
        stays: by class, expired records that something keeps.
        broken: by schema and rule, broken records.
        points: restore points, by schema.
        drill, quality, retention: the runs.
        planned: what `retention plan` printed before, by class.
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
    """Create the databases, draft a pack for each, complete the drafts."""
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
    """Run every workflow that needs only a database."""
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
    """Return connections of a login that has the rights of printed statements, and no others."""
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
    """Run a workflow, whatever its outcome."""
    environment = drafted.environment | connections
    done = drafted.cli.call("run", workflow, *words, "--json", **environment)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@each
def test_draft_marks_the_personal_columns(drafted: Drafted, schema: Schema) -> None:
    """Most are found and few others are marked; columns on which people differ do not count."""
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


def test_config_check_accepts_the_completed_pack(drafted: Drafted) -> None:
    """A completed draft has no error."""
    assert drafted.cli.json("config", "check", **drafted.environment)["problems"] == []


@each
def test_backup_has_every_row_and_its_copy_is_the_original(worked: Worked, schema: Schema) -> None:
    """The restore point has the rows that plain SQL counts; the drill found no difference."""
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
def test_quality_counts_broken_records_as_plain_sql(worked: Worked, schema: Schema) -> None:
    """Every added expectation is checked, with as many broken records as the oracle counts."""
    findings = result(worked.quality)["findings"]
    mine = [finding for finding in findings if finding["subject"].startswith(f"{schema.name}.")]
    counts = {
        finding["subject"].rpartition(".")[2]: finding["message"]["values"]["broken"]
        for finding in mine
        if finding["code"] == "quality.broken"
    }
    assert counts == {
        rule: broken
        for (name, rule), broken in worked.broken.items()
        if name == schema.name and broken
    }
    assert [finding for finding in mine if finding["code"] != "quality.broken"] == []


@each
def test_plan_counts_expired_records_as_plain_sql(worked: Worked, schema: Schema) -> None:
    """Expired records, and those of them that go."""
    for rule in schema.classes:
        name, planned = rule["class"], worked.planned[rule["class"]]
        assert planned["expired"] == worked.expired[name], name
        goes = 0 if rule["action"] == "keep" else worked.expired[name] - worked.stays[name]
        assert planned["to_delete"] + planned["to_mask"] == goes, name
        assert planned["to_drop_partitions"] == rule.get("dropped", 0), name


@each
def test_run_leaves_what_something_keeps(drafted: Drafted, worked: Worked, schema: Schema) -> None:
    """Afterwards exactly the expired records are left that the oracle said would stay."""
    assert worked.retention["state"] == "success"
    for rule in schema.classes:
        if rule["action"] in {"delete", "drop_partition"}:
            left = count(drafted.of(schema), rule["expired"])
            assert left == worked.stays[rule["class"]], rule["class"]
