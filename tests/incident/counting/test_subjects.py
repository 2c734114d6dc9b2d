"""The frozen list of affected people: it only grows, and its digest names it."""

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

from include.incident.counting import subjects
from include.incident.counting.reading import CannotCount
from include.incident.counting.subjects import Frozen
from include.incident.selection import Selection
from include.local.postgres import EmbeddedPostgres
from include.services.programs import program
from tests.incident.counting.shop import RULE
from tests.incident.counting.shop_rig import Rig, new_rig

NUMBERS = iter(range(1, 1000))


@pytest.fixture(scope="module")
def built(postgres: EmbeddedPostgres, state: Engine) -> Iterator[Rig]:
    """The shop."""
    with new_rig(postgres, state) as made:
        yield made


@pytest.fixture
def rig(built: Rig) -> Rig:
    """The shop with three people and a document."""
    built.owner.execute("TRUNCATE person, doc, tag, memo, opened, seen, given")
    built.owner.execute("INSERT INTO person (id) VALUES (1), (2), (10)")
    built.owner.execute("INSERT INTO doc (id, writer, reader) VALUES (7, 10, 2)")
    return built


def incident(rig: Rig) -> int:
    return rig.incident(f"INC-2026-{next(NUMBERS):04d}")


def listed(rig: Rig, number: int, since: int = 1) -> list[tuple[str, str]]:
    return list(subjects.stream(rig.state, number, since))


def frozen(rig: Rig, number: int) -> Frozen:
    with rig.state.connect() as conn:
        return subjects.frozen(conn, number)


def test_the_list_has_everybody_once_sorted_by_code_points(rig: Rig) -> None:
    """Keys only, with their database."""
    number = incident(rig)
    assert rig.freeze(number) == 3
    assert listed(rig, number) == [("shop", "1"), ("shop", "10"), ("shop", "2")]


def test_the_digest_is_that_of_sorted_lines(rig: Rig) -> None:
    """So that anybody can work it out with sort and sha256sum."""
    number = incident(rig)
    rig.freeze(number)
    lines = b"shop/1\nshop/10\nshop/2\n"
    assert frozen(rig, number) == Frozen(3, hashlib.sha256(lines).hexdigest())
    assert frozen(rig, incident(rig)) == Frozen(0, hashlib.sha256(b"").hexdigest())


def test_freezing_again_adds_nobody(rig: Rig) -> None:
    """A task that was killed is repeated."""
    number = incident(rig)
    rig.freeze(number)
    before = frozen(rig, number)
    assert rig.freeze(number) == 0
    assert frozen(rig, number) == before


def test_a_wider_scope_adds_only_the_new(rig: Rig) -> None:
    """With the version that found them; nobody leaves the list."""
    number = incident(rig)
    assert rig.freeze(number, 1, Selection(keys_of="shop.doc", keys=("7",))) == 2
    rig.owner.execute("DELETE FROM doc")
    rig.owner.execute("DELETE FROM person WHERE id = 10")
    rig.owner.execute("INSERT INTO person (id) VALUES (3)")
    assert rig.freeze(number, 2) == 2
    assert listed(rig, number, 2) == [("shop", "1"), ("shop", "3")]
    assert [key for _, key in listed(rig, number)] == ["1", "10", "2", "3"]
    with rig.state.connect() as conn:
        assert subjects.by_database(conn, number) == {"shop": 4}


def test_incidents_have_lists_of_their_own(rig: Rig) -> None:
    """Two may affect the same people."""
    one, other = incident(rig), incident(rig)
    rig.freeze(one)
    assert rig.freeze(other, 1, Selection(keys=("shop/2",))) == 1
    assert len(listed(rig, one)) == 3
    assert listed(rig, other) == [("shop", "2")]


def test_who_is_on_the_list_is_who_was_counted(rig: Rig) -> None:
    """People whom only a memo or a log names too."""
    rig.owner.execute("INSERT INTO memo VALUES (1, 77, NULL, 'x')")
    rig.owner.execute("INSERT INTO opened VALUES (1, 1, 88, NULL), (2, 1, NULL, NULL)")
    number, other = incident(rig), incident(rig)
    assert rig.freeze(number) == 4
    assert rig.freeze(other, 1, Selection(accounts=("ann",))) == 1
    assert listed(rig, other) == [("shop", "88")]


def test_a_list_that_cannot_be_read_adds_nobody(rig: Rig) -> None:
    """What is there already stays."""
    number = incident(rig)
    rig.freeze(number, 1, Selection(keys=("shop/2",)))
    gone = rig.address.with_database("gone")
    with pytest.raises(CannotCount, match="refused the connection"):
        rig.freeze(number, 2, address=gone)
    assert listed(rig, number) == [("shop", "2")]
    broken = RULE.records[1].model_copy(update={"subjects": ("r.writer / 0",)})
    rule = RULE.model_copy(update={"records": (RULE.records[0], broken)})
    with pytest.raises(CannotCount):
        rig.freeze(number, 2, rule=rule)
    assert listed(rig, number) == [("shop", "2")]


def test_several_databases_are_frozen_in_one_transaction(rig: Rig) -> None:
    """All of a version, or none."""
    number = incident(rig)
    with rig.state.begin() as conn:
        assert rig.freeze(number, 1, Selection(keys=("shop/1",)), conn=conn) == 1
        assert rig.freeze(number, 1, Selection(keys=("shop/2",)), conn=conn) == 1
    assert len(listed(rig, number)) == 2


def test_nothing_but_keys_is_kept(rig: Rig) -> None:
    """Neither a name nor an address."""
    rig.owner.execute("UPDATE person SET mail = 'secret@example.com', secret = 'plague'")
    number = incident(rig)
    rig.freeze(number)
    with rig.state.connect() as conn:
        rows = conn.execute(
            text("SELECT * FROM incident_subject WHERE incident_id = :id"), {"id": number}
        ).all()
    assert {tuple(one) for one in rows} == {
        (number, "shop", "1", 1), (number, "shop", "10", 1), (number, "shop", "2", 1),
    }  # fmt: skip


def test_memory_is_flat(rig: Rig) -> None:
    """A hundred thousand people take no more than some pages of them."""
    rig.owner.execute("INSERT INTO person (id) SELECT n FROM generate_series(100, 100_099) AS n")
    number = incident(rig)
    tracemalloc.start()
    try:
        assert rig.freeze(number) == 100_003
        assert frozen(rig, number).people == 100_003
        assert sum(1 for _ in subjects.stream(rig.state, number)) == 100_003
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
def test_the_database_refuses_to_change_a_frozen_list(rig: Rig, statement: str) -> None:
    """As it does the timeline, whoever asks for it."""
    number = incident(rig)
    rig.freeze(number)
    with pytest.raises(IntegrityError, match="history"), rig.state.begin() as conn:
        conn.execute(text(statement))
    assert len(listed(rig, number)) == 3


def test_an_outsider_writes_the_list_whose_digest_it_is_with_psql(
    rig: Rig, postgres: EmbeddedPostgres
) -> None:
    """The line of docs/evidence.md, as it stands there."""
    number = incident(rig)
    rig.owner.execute("INSERT INTO person (id) VALUES (9), (100)")
    rig.freeze(number)
    with rig.state.connect() as conn:
        named = conn.scalar(text("SELECT number FROM incident WHERE id = :id"), {"id": number})
        driver = conn.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        state = postgres.conninfo(driver.info.dbname)
    page = (Path(__file__).parents[3] / "docs" / "evidence.md").read_text()
    (line,) = re.findall(r"^psql .*incident_subject.*$", page, re.MULTILINE)
    done = subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            line.replace("INC-2026-0001", str(named)) + " | sha256sum",
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
    assert done.stdout.split()[0] == frozen(rig, number).sha256
    assert frozen(rig, number).people == 5
