"""Tests that the stored list of affected people only grows, and that its digest is reproducible."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from include.incident.counting import subject_list
from include.incident.counting.snapshot import CannotCount
from include.incident.counting.subject_list import FrozenList
from include.incident.selection import Selection
from include.local.postgres import EmbeddedPostgres
from include.services.programs import program
from tests.incident.counting.shop_fixtures import ShopDatabase, new_shop_database
from tests.incident.counting.shop_oracle import RULE

NUMBERS = iter(range(1, 1000))


@pytest.fixture(scope="module")
def built(postgres: EmbeddedPostgres, state: Engine) -> Iterator[ShopDatabase]:
    """Provide the database of the shop."""
    with new_shop_database(postgres, state) as shop:
        yield shop


@pytest.fixture
def rig(built: ShopDatabase) -> ShopDatabase:
    """Provide the database of the shop with three people and a document."""
    built.owner.execute("TRUNCATE person, doc, tag, memo, opened, seen, given")
    built.owner.execute("INSERT INTO person (id) VALUES (1), (2), (10)")
    built.owner.execute("INSERT INTO doc (id, writer, reader) VALUES (7, 10, 2)")
    return built


def incident(rig: ShopDatabase) -> int:
    return rig.incident(f"INC-2026-{next(NUMBERS):04d}")


def listed(rig: ShopDatabase, number: int, since: int = 1) -> list[tuple[str, str]]:
    return list(subject_list.stream_subjects(rig.state, number, since))


def frozen(rig: ShopDatabase, number: int) -> FrozenList:
    with rig.state.connect() as conn:
        return subject_list.frozen_list(conn, number)


def test_list_of_affected_people_has_each_person_once_sorted_by_code_points(
    rig: ShopDatabase,
) -> None:
    number = incident(rig)
    assert rig.freeze(number) == 3
    assert listed(rig, number) == [("shop", "1"), ("shop", "10"), ("shop", "2")]


def test_list_digest_is_computed_from_sorted_lines(rig: ShopDatabase) -> None:
    number = incident(rig)
    rig.freeze(number)
    lines = b"shop/1\nshop/10\nshop/2\n"
    assert frozen(rig, number) == FrozenList(3, hashlib.sha256(lines).hexdigest())
    assert frozen(rig, incident(rig)) == FrozenList(0, hashlib.sha256(b"").hexdigest())


def test_storing_same_list_again_adds_nobody(rig: ShopDatabase) -> None:
    number = incident(rig)
    rig.freeze(number)
    before = frozen(rig, number)
    assert rig.freeze(number) == 0
    assert frozen(rig, number) == before


def test_wider_scope_adds_only_new_people_to_list(rig: ShopDatabase) -> None:
    number = incident(rig)
    assert rig.freeze(number, 1, Selection(keys_of="shop.doc", keys=("7",))) == 2
    rig.owner.execute("DELETE FROM doc")
    rig.owner.execute("DELETE FROM person WHERE id = 10")
    rig.owner.execute("INSERT INTO person (id) VALUES (3)")
    assert rig.freeze(number, 2) == 2
    assert listed(rig, number, 2) == [("shop", "1"), ("shop", "3")]
    assert [key for _, key in listed(rig, number)] == ["1", "10", "2", "3"]
    with rig.state.connect() as conn:
        assert subject_list.count_by_database(conn, number) == {"shop": 4}


def test_each_incident_has_its_own_list_of_affected_people(rig: ShopDatabase) -> None:
    first, other = incident(rig), incident(rig)
    rig.freeze(first)
    assert rig.freeze(other, 1, Selection(keys=("shop/2",))) == 1
    assert len(listed(rig, first)) == 3
    assert listed(rig, other) == [("shop", "2")]


def test_list_includes_people_without_row_in_subject_table(rig: ShopDatabase) -> None:
    rig.owner.execute("INSERT INTO memo VALUES (1, 77, NULL, 'x')")
    rig.owner.execute("INSERT INTO opened VALUES (1, 1, 88, NULL), (2, 1, NULL, NULL)")
    number, other = incident(rig), incident(rig)
    assert rig.freeze(number) == 4
    assert rig.freeze(other, 1, Selection(accounts=("ann",))) == 1
    assert listed(rig, other) == [("shop", "88")]


def test_nobody_is_added_to_list_if_database_cannot_be_read(rig: ShopDatabase) -> None:
    number = incident(rig)
    rig.freeze(number, 1, Selection(keys=("shop/2",)))
    missing_database = rig.address.with_database("gone")
    with pytest.raises(CannotCount, match="refused the connection"):
        rig.freeze(number, 2, address=missing_database)
    assert listed(rig, number) == [("shop", "2")]
    broken = RULE.records[1].model_copy(update={"subjects": ("r.writer / 0",)})
    rule = RULE.model_copy(update={"records": (RULE.records[0], broken)})
    with pytest.raises(CannotCount):
        rig.freeze(number, 2, rule=rule)
    assert listed(rig, number) == [("shop", "2")]


def test_people_of_two_scopes_can_be_added_to_list_in_one_transaction(rig: ShopDatabase) -> None:
    number = incident(rig)
    with rig.state.begin() as conn:
        assert rig.freeze(number, 1, Selection(keys=("shop/1",)), conn=conn) == 1
        assert rig.freeze(number, 1, Selection(keys=("shop/2",)), conn=conn) == 1
    assert len(listed(rig, number)) == 2


def test_stored_list_contains_keys_of_people_and_no_other_personal_data(rig: ShopDatabase) -> None:
    rig.owner.execute("UPDATE person SET mail = 'secret@example.com', secret = 'plague'")
    number = incident(rig)
    rig.freeze(number)
    with rig.state.connect() as conn:
        rows = conn.execute(
            text("SELECT * FROM incident_subject WHERE incident_id = :id"), {"id": number}
        ).all()
    assert {tuple(row) for row in rows} == {
        (number, "shop", "1", 1), (number, "shop", "10", 1), (number, "shop", "2", 1),
    }  # fmt: skip


def test_storing_and_reading_list_of_100000_people_uses_less_than_12_megabytes(
    rig: ShopDatabase,
) -> None:
    rig.owner.execute("INSERT INTO person (id) SELECT n FROM generate_series(100, 100_099) AS n")
    number = incident(rig)
    tracemalloc.start()
    try:
        assert rig.freeze(number) == 100_003
        assert frozen(rig, number).people == 100_003
        assert sum(1 for _ in subject_list.stream_subjects(rig.state, number)) == 100_003
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 12_000_000  # bytes; a list of all would take twice as much


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM incident_subject WHERE key = '10'",
        "UPDATE incident_subject SET key = '11' WHERE key = '10'",
        "TRUNCATE incident_subject",
    ],
)
def test_stored_list_cannot_be_changed(rig: ShopDatabase, statement: str) -> None:
    number = incident(rig)
    rig.freeze(number)
    with pytest.raises(IntegrityError, match="history"), rig.state.begin() as conn:
        conn.execute(text(statement))
    assert len(listed(rig, number)) == 3


def test_documented_psql_command_reproduces_list_digest(
    rig: ShopDatabase, postgres: EmbeddedPostgres
) -> None:
    number = incident(rig)
    rig.owner.execute("INSERT INTO person (id) VALUES (9), (100)")
    rig.freeze(number)
    with rig.state.connect() as conn:
        incident_number = conn.scalar(
            text("SELECT number FROM incident WHERE id = :id"), {"id": number}
        )
        driver = conn.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        state = postgres.conninfo(driver.info.dbname)
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "check-a-bundle.md").read_text()
    (line,) = re.findall(r"^psql .*incident_subject.*$", page, re.MULTILINE)
    result = subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            line.replace("INC-2026-0001", str(incident_number)) + " | sha256sum",
        ],
        env={
            **os.environ,
            "STATE": state,
            "PATH": f"{Path(program('psql')).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split()[0] == frozen(rig, number).sha256
    assert frozen(rig, number).people == 5
