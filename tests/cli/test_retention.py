"""``retention plan``: what would go, what stays and why; nothing is written, nobody is asked."""

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
from include.retention.planning.plan import combined
from include.retention.planning.planner import plan_of
from include.services.errors import UsageError
from include.state.tables import metadata
from include.workflow.run_context import RunContext
from include.workplace import ROOT, Workplace
from tests.policy.packs import write_pack
from tests.retention import step_records as steps
from tests.retention.chinook import AS_OF
from tests.retention.place import chinook_in_run, chinook_place, spec

MOMENT = AS_OF.isoformat()
# Refers to an invoice, and the data map has no such table.
SCRIPT = """
CREATE TABLE refund (id int PRIMARY KEY, invoice int CONSTRAINT of_invoice REFERENCES invoice);
INSERT INTO refund SELECT 1, min(invoice_id) FROM invoice;
"""
OVER = "SELECT count(*) FROM {} WHERE invoice_date < '2021-04-01'"
LINES = "invoice_line JOIN invoice USING (invoice_id)"


@pytest.fixture(scope="module")
def chinook(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Chinook with a hold on one invoice, past its review."""
    names = [f"t_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}".encode())
    conninfos = [postgres.conninfo(name) for name in names]
    made = chinook_place(tmp_path_factory.mktemp("chinook"), *conninfos, SCRIPT)
    with made.state.begin() as conn:
        registry.add(
            conn,
            made.clock,
            kind=registry.HoldKind.CASE,
            value="2",
            reason="disputed",
            owner="legal",
            case_ref="C-1",
            review_on=made.clock.now().date(),
        )
    return made


@pytest.fixture
def place(chinook: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The command at that workplace."""
    at(monkeypatch, chinook)
    return chinook


def at(monkeypatch: pytest.MonkeyPatch, place: Workplace) -> None:
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", lambda _place, customers: nullcontext(customers))


def shown(capsys: pytest.CaptureFixture[str], **asked: Any) -> dict[str, Any]:
    assert command.plan(**{"as_of": MOMENT, "database": None, **asked}, as_json=True) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def count(place: Workplace, query: str) -> int:
    with place.database("customer_db").connect() as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def state_of(place: Workplace) -> dict[str, list[Any]]:
    with place.state.connect() as conn:
        return {one.name: list(conn.execute(one.select())) for one in metadata.sorted_tables}


def test_it_prints_what_a_run_would_plan(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The very hash that people would approve, and the figures that SQL alone counts."""
    found = shown(capsys)
    assert set(found) == {"plan_hash", "classes"}
    classes = {one["name"]: one for one in found["classes"]}
    for one in classes.values():
        assert {"name", "collection", "expired", "held"} < set(one)
        assert {"to_delete", "to_mask", "to_drop_partitions"} < set(one)
        assert "database" not in one
    assert classes["invoice_record"]["expired"] == count(place, OVER.format("invoice"))
    assert classes["invoice_item"]["expired"] == count(place, OVER.format(LINES))
    assert classes["invoice_item"]["to_delete"] < classes["invoice_item"]["expired"]
    assert classes["staff"]["to_delete"] == 0
    made = steps.plan(chinook_in_run(place, "the same moment"), MOMENT)
    assert made.data["sha256"] == found["plan_hash"]
    assert [one["to_delete"] for one in made.data["classes"]] == [
        one["to_delete"] for one in found["classes"]
    ]


def test_what_will_wait_for_a_second_person_is_said(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anybody runs it: the class, and the limit that it is beyond."""
    now = {one["name"]: one["waits_for_approval"] for one in shown(capsys)["classes"]}
    assert set(now.values()) == {None}
    later = shown(capsys, as_of="2036-01-01")["classes"]
    waits = {one["name"]: one["waits_for_approval"] for one in later}
    assert (waits["invoice_record"], waits["staff"]) == ("percent", None)


def test_plan_names_triggers_that_react(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    with place.database("customer_db").connect(autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN OLD; END$$;"
            "CREATE TRIGGER react AFTER DELETE ON invoice FOR EACH ROW EXECUTE FUNCTION react()"
        )
        try:
            command.plan(as_of=MOMENT)
        finally:
            connection.execute("DROP FUNCTION react CASCADE")
    assert "react (public.invoice, public.react)" in capsys.readouterr().err.replace("\n", " ")


def test_nothing_is_written_and_nobody_asked(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of no table of the state database a row changes, also in a preview of what is to come."""
    before = state_of(place)
    shown(capsys)
    ahead = shown(capsys, as_of="2036-01-01")
    assert state_of(place) == before
    later = {one["name"]: one["to_delete"] for one in ahead["classes"]}
    assert later["invoice_record"] > 100
    assert shown(capsys)["plan_hash"] != ahead["plan_hash"]


def test_without_a_day_it_is_today(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """In the pack's timezone, as of a run."""
    today = place.clock.now().astimezone(place.pack.calendar.zone).date()
    assert shown(capsys, as_of=None) == shown(capsys, as_of=today.isoformat())


def test_people_see_what_stays_and_why(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hold, and by foreign key; one of a table that the data map lacks is named as such."""
    assert command.plan(as_of=MOMENT) == 0
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert ["invoice_record", "1", "hold", "1"] in lines
    refund = next(line for line in said.out.splitlines() if "of_invoice" in line)
    assert "public.refund" in refund
    assert command.NOT_MAPPED in refund
    assert f"SHA-256 {plan_of(chinook_in_run(place), MOMENT).sha256}" in said.out
    assert "Past their review date: hold 1." in said.err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"database": "nope"}, "maps no database nope"),
        ({"as_of": "2026-13-01"}, "is no day and no moment"),
        ({"as_of": "tomorrow"}, "is no day and no moment"),
        ({"as_of": "2026-11-25T03:30:00"}, "is no day and no moment"),
        ({"as_of": "0001-01-01"}, "too far away"),
    ],
)
def test_what_was_asked_wrongly_is_refused(
    place: Workplace, asked: dict[str, str], said: str
) -> None:
    """With what to write instead."""
    with pytest.raises(UsageError, match=said) as refused:
        command.plan(**asked)
    assert refused.value.action


def test_a_pack_without_a_schedule_says_what_to_write(
    chinook: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing would ever expire; no "0 to delete" is printed that looks like a result."""
    at(monkeypatch, replace(chinook, policy=write_pack(tmp_path)))
    with pytest.raises(UsageError, match=r"no retention\.yaml") as refused:
        command.plan()
    assert "retention.yaml" in refused.value.action


def test_several_databases_have_a_plan_each_and_one_hash(
    chinook: Workplace,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each class says of which it is; a database without classes is left out, or refused."""
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

    place = replace(chinook, policy=pack, lookup=lookup)
    at(monkeypatch, place)
    found = shown(capsys)
    assert [(one["database"], one["name"], one["to_delete"]) for one in found["classes"]] == [
        ("one", "one", 1),
        ("two", "two", 1),
    ]
    plans = [
        plan_of(RetentionDatabase(RunContext(place, None), name), MOMENT) for name in ("one", "two")
    ]
    assert found["plan_hash"] == combined(plans)
    alone = shown(capsys, database="two")
    assert alone["plan_hash"] == plans[1].sha256
    assert [set(one) & {"database"} for one in alone["classes"]] == [set()]
    assert command.plan(as_of=MOMENT) == 0
    said = capsys.readouterr()
    assert f"All plans: SHA-256 {combined(plans)}" in said.out
    assert "No record class is of bare: nothing there ever expires." in said.err
    with pytest.raises(UsageError, match="no record class of bare"):
        command.plan(database="bare")


def test_it_is_a_good_first_command(tmp_path: Path):
    """In a home where nothing is yet the sample company's database is made, as by `run`."""
    done = subprocess.run(
        [sys.executable, "-m", "include.cli", "retention", "plan", "--json"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PARCELSEAL_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    assert sum(one["expired"] for one in json.loads(done.stdout)["classes"]) > 0
