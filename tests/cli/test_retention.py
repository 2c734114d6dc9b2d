"""The command ``retention plan`` previews a disposition plan and changes no data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.cli import retention as command
from include.holds import registry
from include.local.postgres import EmbeddedPostgres
from include.retention.database import RetentionDatabase
from include.retention.planning.plan import combined_sha256
from include.retention.planning.planner import plan_database
from include.service_container import ROOT, Services
from include.services.errors import UsageError
from include.state.tables import metadata
from include.workflow.run_context import RunContext
from tests.policy.packs import write_pack
from tests.retention import step_records as steps
from tests.retention.chinook_pack import AS_OF
from tests.retention.chinook_services import chinook_in_run, chinook_services, spec

MOMENT = AS_OF.isoformat()
# The table refers to an invoice and is not in the data map.
SCRIPT = """
CREATE TABLE refund (id int PRIMARY KEY, invoice int CONSTRAINT of_invoice REFERENCES invoice);
INSERT INTO refund SELECT 1, min(invoice_id) FROM invoice;
"""
OVER = "SELECT count(*) FROM {} WHERE invoice_date < '2021-04-01'"
LINES = "invoice_line JOIN invoice USING (invoice_id)"


@pytest.fixture(scope="module")
def chinook(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Return services with the Chinook database and a legal hold on one invoice.

    The review of the hold is due.
    """
    names = [f"t_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}".encode())
    conninfos = [postgres.conninfo(name) for name in names]
    services = chinook_services(tmp_path_factory.mktemp("chinook"), *conninfos, SCRIPT)
    with services.state.begin() as conn:
        registry.add(
            conn,
            services.clock,
            kind=registry.HoldKind.CASE,
            value="2",
            reason="disputed",
            owner="legal",
            case_ref="C-1",
            review_on=services.clock.now().date(),
        )
    return services


@pytest.fixture
def services(chinook: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Let the command use the services with the Chinook database."""
    use_services(monkeypatch, chinook)
    return chinook


def use_services(monkeypatch: pytest.MonkeyPatch, services: Services) -> None:
    monkeypatch.setattr(command, "command_services", lambda: services)
    monkeypatch.setattr(command, "local_stack", lambda _services, customers: nullcontext(customers))


def plan_json(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    assert command.plan(**{"as_of": MOMENT, "database": None, **options}, as_json=True) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    printed = json.loads(out)
    assert isinstance(printed, dict)
    return printed


def count(services: Services, query: str) -> int:
    with services.database("customer_db").connect() as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def state_of(services: Services) -> dict[str, list[Any]]:
    with services.state.connect() as conn:
        return {table.name: list(conn.execute(table.select())) for table in metadata.sorted_tables}


def test_retention_plan_command_prints_the_same_plan_as_a_run_at_the_same_time(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output has the hash that approvers approve. Its figures equal independent SQL counts."""
    printed = plan_json(capsys)
    assert set(printed) == {"plan_hash", "classes"}
    classes = {record_class["name"]: record_class for record_class in printed["classes"]}
    for record_class in classes.values():
        assert {"name", "collection", "expired", "held"} < set(record_class)
        assert {"to_delete", "to_mask", "to_drop_partitions"} < set(record_class)
        assert "database" not in record_class
    assert classes["invoice_record"]["expired"] == count(services, OVER.format("invoice"))
    assert classes["invoice_item"]["expired"] == count(services, OVER.format(LINES))
    assert classes["invoice_item"]["to_delete"] < classes["invoice_item"]["expired"]
    assert classes["staff"]["to_delete"] == 0
    record = steps.plan(chinook_in_run(services, "the same moment"), MOMENT)
    assert record.data["sha256"] == printed["plan_hash"]
    assert [record_class["to_delete"] for record_class in record.data["classes"]] == [
        record_class["to_delete"] for record_class in printed["classes"]
    ]


def test_retention_plan_shows_the_record_classes_that_need_approval(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output has the record class, and the circuit breaker that the plan exceeds."""
    now = {
        record_class["name"]: record_class["waits_for_approval"]
        for record_class in plan_json(capsys)["classes"]
    }
    assert set(now.values()) == {None}
    later = plan_json(capsys, as_of="2036-01-01")["classes"]
    waits = {record_class["name"]: record_class["waits_for_approval"] for record_class in later}
    assert (waits["invoice_record"], waits["staff"]) == ("percent", None)


def test_retention_plan_lists_triggers_that_a_deletion_would_fire(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    with services.database("customer_db").connect(autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN OLD; END$$;"
            "CREATE TRIGGER react AFTER DELETE ON invoice FOR EACH ROW EXECUTE FUNCTION react()"
        )
        try:
            command.plan(as_of=MOMENT)
        finally:
            connection.execute("DROP FUNCTION react CASCADE")
    assert "react (public.invoice, public.react)" in capsys.readouterr().err.replace("\n", " ")


def test_retention_plan_changes_no_table_of_the_state_database(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    """The preview of a future day changes no table of the state database either."""
    before = state_of(services)
    plan_json(capsys)
    preview = plan_json(capsys, as_of="2036-01-01")
    assert state_of(services) == before
    later = {record_class["name"]: record_class["to_delete"] for record_class in preview["classes"]}
    assert later["invoice_record"] > 100
    assert plan_json(capsys)["plan_hash"] != preview["plan_hash"]


def test_retention_plan_without_as_of_option_equals_the_plan_as_of_today(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    """Today is determined in the timezone of the policy pack, as in a run."""
    today = services.clock.now().astimezone(services.pack.calendar.zone).date()
    assert plan_json(capsys, as_of=None) == plan_json(capsys, as_of=today.isoformat())


def test_printed_table_of_retention_plan_contains_kept_records_with_their_reasons(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reasons are legal holds and foreign keys, also of tables outside the data map."""
    assert command.plan(as_of=MOMENT) == 0
    output = capsys.readouterr()
    lines = [line.split() for line in output.out.splitlines()]
    assert ["invoice_record", "1", "hold", "1"] in lines
    refund = next(line for line in output.out.splitlines() if "of_invoice" in line)
    assert "public.refund" in refund
    assert command.NOT_MAPPED in refund
    assert f"SHA-256 {plan_database(chinook_in_run(services), MOMENT).sha256}" in output.out
    assert "The review of these holds is due: 1." in output.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"database": "nope"}, "maps no database nope"),
        ({"as_of": "2026-13-01"}, "is neither a date nor a date and time"),
        ({"as_of": "tomorrow"}, "is neither a date nor a date and time"),
        ({"as_of": "2026-11-25T03:30:00"}, "is neither a date nor a date and time"),
        ({"as_of": "0001-01-01"}, "is not supported"),
    ],
)
def test_retention_plan_command_raises_usage_error_for_invalid_option_value(
    services: Services, options: dict[str, str], message: str
) -> None:
    """The error tells the user which value is valid."""
    with pytest.raises(UsageError, match=message) as refused:
        command.plan(**options)
    assert refused.value.action


def test_retention_plan_command_raises_usage_error_if_policy_pack_has_no_retention_yaml(
    chinook: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without retention.yaml no record expires, and "0 to delete" would look like a result."""
    use_services(monkeypatch, replace(chinook, policy=write_pack(tmp_path)))
    with pytest.raises(UsageError, match=r"no retention\.yaml") as refused:
        command.plan()
    assert "retention.yaml" in refused.value.action


def test_retention_plan_for_several_databases_has_a_single_plan_hash(
    chinook: Services,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each record class has the name of its database.

    A database without record classes is omitted, or refused if it is requested.
    """
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE buyer (id int PRIMARY KEY, phone text, seen_at date)")
        connection.execute("INSERT INTO buyer VALUES (1, NULL, '2020-01-01'), (2, NULL, NULL)")
    shop = "fides_key: {}\nmeta: {{parcelseal: {{connection: shop_db}}}}\ncollections:\n"
    fields = "  - name: buyer\n    fields: [{name: id, fides_meta: {primary_key: true}}, "
    fields += "{name: seen_at}]\n"
    rule = "{{class: {0}, database: {0}, collection: buyer, clock: seen_at, period: P1Y, "
    rule += "action: delete, basis: business}}"
    pack = write_pack(
        tmp_path,
        **{f"datamap__{name}": shop.format(name) + fields for name in ("one", "two", "bare")},
        retention="\n".join(f"- {rule.format(name)}" for name in ("one", "two")),
        disposition="approval: {owners: {accounts: [a]}, approvers: {accounts: [b]}}",
    )
    address = spec("shop_db", database)

    def lookup(conn_id: str) -> Any:
        return address if conn_id == "shop_db" else chinook.lookup(conn_id)

    services = replace(chinook, policy=pack, lookup=lookup)
    use_services(monkeypatch, services)
    printed = plan_json(capsys)
    assert [
        (record_class["database"], record_class["name"], record_class["to_delete"])
        for record_class in printed["classes"]
    ] == [
        ("one", "one", 1),
        ("two", "two", 1),
    ]
    plans = [
        plan_database(RetentionDatabase(RunContext(services, None), name), MOMENT)
        for name in ("one", "two")
    ]
    assert printed["plan_hash"] == combined_sha256(plans)
    alone = plan_json(capsys, database="two")
    assert alone["plan_hash"] == plans[1].sha256
    assert [set(record_class) & {"database"} for record_class in alone["classes"]] == [set()]
    assert command.plan(as_of=MOMENT) == 0
    output = capsys.readouterr()
    assert f"All plans: SHA-256 {combined_sha256(plans)}" in output.out
    assert "bare has no record class, so its records never expire." in output.err
    with pytest.raises(UsageError, match="no record class of bare"):
        command.plan(database="bare")


def test_retention_plan_command_creates_the_sample_database_if_parcelseal_home_is_empty(
    tmp_path: Path,
):
    """The command creates the database of the sample company, as the command `run` does."""
    completed = subprocess.run(
        [sys.executable, "-m", "include.cli", "retention", "plan", "--json"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PARCELSEAL_HOME": str(tmp_path / "home")},
    )
    assert completed.returncode == 0, completed.stderr
    assert (
        sum(record_class["expired"] for record_class in json.loads(completed.stdout)["classes"]) > 0
    )
