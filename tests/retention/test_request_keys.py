"""Tests of erasure requests whose keys have each type.

Records are erased, kept and counted for every spelling of the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from include.erasure import requests
from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from tests.retention.kills import Killed
from tests.retention.linked_schemas import Schema, found_by, linked_runner
from tests.retention.postgres.test_key_types import TYPED, TYPES, UUID
from tests.retention.runner import OLD, YOUNG, RetentionRunner, rule

CAPITALS = UUID.upper()
OTHER = UUID.replace("a0", "a1")
# Requests with numbers that are not written as a server prints them match no numeric key.
REQUESTED = [
    (kind, key, other, "7" if typed == "007" else typed) for kind, key, other, typed in TYPED
]


def states(record: StepRecord) -> list[str]:
    """Return the states of the erasure requests in a step record, oldest request first."""
    ordered = sorted(record.data["requests"], key=lambda request: request["request"])
    return [request["state"] for request in ordered]


def ids(runner: RetentionRunner, table: str) -> set[int]:
    """Return the primary keys of the records of a table."""
    return {row[0] for row in runner.sql(f"SELECT id FROM {table}".encode())}


def tables(types: Sequence[str], *more: str) -> Schema:
    """Return a schema with tables ``t0``, ``t1``, ... that are erased on request by a key ``k``.

    Args:
        types: type of ``k`` in each table.
        more: further SQL statements.
    """
    names = [f"t{at}" for at in range(len(types))]
    return Schema(
        "".join(
            f"CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz, k {kind});"
            for name, kind in zip(names, types, strict=True)
        )
        + "".join(more),
        {name: ["id"] for name in names},
        tuple(rule(name, **found_by("t.k")) for name in names),
    )


@pytest.fixture
def people(postgres: EmbeddedPostgres) -> Iterator[RetentionRunner]:
    """A runner with two people.

    The uuid of a person is in one table. Another table contains the same key as text. The key of
    person 1 is `UUID`. Homes are found through the table with the uuid.
    """
    schema = Schema(
        "CREATE TABLE home (id int PRIMARY KEY, at timestamptz);"
        "CREATE TABLE client (id int PRIMARY KEY, at timestamptz, k uuid,"
        "    home int NOT NULL REFERENCES home);"
        "CREATE TABLE letter (id int PRIMARY KEY, at timestamptz, k text);",
        {"home": ["id"], "client": ["id"], "letter": ["id"]},
        (
            rule("client", **found_by("t.k")),
            rule("home", **found_by("(SELECT c.k FROM client c WHERE c.home = t.id)")),
            rule("letter", **found_by("t.k")),
        ),
    )
    with linked_runner(postgres, schema) as runner:
        for number, key in ((1, UUID), (2, OTHER)):
            runner.insert("home", id=number, at=YOUNG)
            runner.insert("client", id=number, at=YOUNG, k=key, home=number)
            runner.insert("letter", id=number, at=YOUNG, k=key)
        yield runner


def left(runner: RetentionRunner) -> list[set[int]]:
    """Return the primary keys of the remaining records of the tables of people."""
    return [ids(runner, name) for name in ("client", "home", "letter")]


def test_erasure_request_erases_record_whose_key_is_spelled_differently_in_the_database(
    postgres: EmbeddedPostgres,
) -> None:
    """Each record class is searched for all requests.

    For each request, only the records of its own data subject are erased.
    """
    schema = tables([kind for kind, *_ in REQUESTED])
    with linked_runner(
        postgres, Schema(TYPES + schema.tables, schema.keys, schema.rules)
    ) as runner:
        for at, (_kind, key, other, typed) in enumerate(REQUESTED):
            for number, value in ((1, key), (2, other), (3, None)):
                runner.insert(f"t{at}", id=number, at=YOUNG, k=value)
            runner.request(f"courier/{typed}", entered_by=f"dpo{at}")
        *_, counted = runner.run()
        names = [f"{kind} {typed}" for kind, _key, _other, typed in REQUESTED]
        remaining = {name: ids(runner, f"t{at}") for at, name in enumerate(names)}
        assert remaining == {name: {2, 3} for name in names}
        assert set(states(counted)) == {"closed"}


def test_erasure_request_erases_records_in_record_classes_with_keys_of_several_types(
    people: RetentionRunner,
) -> None:
    """A text column contains the key in the format in which the uuid column is printed.

    All records of the person in the table with this text column are erased.
    """
    people.request(CAPITALS)
    *_, counted = people.run()
    assert left(people) == [{2}, {2}, {2}]
    assert states(counted) == ["closed"]


@pytest.mark.parametrize(
    ("key_type", "key", "typed"),
    [
        ("macaddr", "08:00:2b:01:02:03", "08002B-010203"),
        ("macaddr8", "08:00:2b:01:02:03:04:05", "0800.2b01.0203.0405"),
        ("bytea", r"\x0aff", r"\x0AFF"),
    ],
)
def test_erasure_request_erases_record_that_stores_a_mac_address_or_binary_key_as_text(
    postgres: EmbeddedPostgres, key_type: str, key: str, typed: str
) -> None:
    """A text column has the key as PostgreSQL prints it, not as the request spells it."""
    with linked_runner(postgres, tables([key_type, "text"])) as runner:
        for name in ("t0", "t1"):
            runner.insert(name, id=1, at=YOUNG, k=key)
        runner.request(typed)
        *_, counted = runner.run()
        assert [ids(runner, name) for name in ("t0", "t1")] == [set(), set()]
        assert states(counted) == ["closed"]


def test_two_erasure_requests_of_one_person_in_two_spellings_are_closed_together(
    people: RetentionRunner,
) -> None:
    """One run closes both requests."""
    people.request(CAPITALS)
    people.request(UUID)
    assert states(people.run()[-1]) == ["closed", "closed"]
    assert left(people) == [{2}, {2}, {2}]


@pytest.mark.parametrize("key_type", ["int", "numeric"])
def test_erasure_request_for_code_with_leading_zeros_erases_no_record_with_numeric_key(
    postgres: EmbeddedPostgres, key_type: str
) -> None:
    """The code 0012 is not the number 12, which may belong to another person."""
    with linked_runner(postgres, tables([key_type, "text"])) as runner:
        for name in ("t0", "t1"):
            runner.insert(name, id=1, at=YOUNG, k="12")
        runner.insert("t1", id=2, at=YOUNG, k="0012")
        runner.request("0012")
        *_, counted = runner.run()
        assert [ids(runner, name) for name in ("t0", "t1")] == [{1}, {1}]
        assert states(counted) == ["closed"]


@pytest.mark.parametrize(("subject", "held"), [(CAPITALS, UUID), (UUID, CAPITALS)])
def test_legal_hold_keeps_records_of_erasure_request_that_spells_the_same_uuid_in_other_case(
    people: RetentionRunner, subject: str, held: str
) -> None:
    """The hold is on the person of the request, so the request stays open and restricted."""
    people.request(subject)
    people.hold(HoldKind.SUBJECT, held)
    planned, *_, counted = people.run()
    assert left(people) == [{1, 2}, {1, 2}, {1, 2}]
    assert states(counted) == ["restricted"]
    assert {it["name"]: it["held"] for it in planned.data["classes"]} == {
        "client": 1, "home": 1, "letter": 1,
    }  # fmt: skip


def test_legal_hold_with_uppercase_uuid_keeps_linked_record_after_its_client_was_erased(
    people: RetentionRunner,
) -> None:
    """The client, through whom the home is found, is erased first.

    A later hold still keeps the home.
    """
    people.request(UUID)
    planned = people.plan()

    def progress(_stage: str) -> None:
        if not ids(people, "client") & {1}:
            raise Killed

    with pytest.raises(Killed):
        people.execute(planned, progress=progress)
    assert ids(people, "home") == {1, 2}
    people.hold(HoldKind.SUBJECT, CAPITALS)
    executed = people.execute(planned)
    assert ids(people, "home") == {1, 2}
    assert states(people.verify(planned, executed)) == ["restricted"]


def test_records_that_are_assigned_to_other_person_after_plan_are_not_erased(
    people: RetentionRunner,
) -> None:
    """If the client of a home now belongs to another person, the home is kept."""
    request = people.request(CAPITALS)
    planned = people.plan()
    people.sql("UPDATE client SET k = %s", [OTHER])
    people.sql("UPDATE letter SET k = %s", [OTHER])
    executed = people.execute(planned)
    assert left(people) == [{1, 2}, {1, 2}, {1, 2}]
    counted = people.verify(planned, executed)
    assert (counted.data["requests"][0]["request"], states(counted)) == (request, ["restricted"])
    assert counted.data["requests"][0]["taken_over"] == 3


def test_legal_hold_with_uppercase_uuid_keeps_expired_record_that_stores_the_uuid_as_text(
    people: RetentionRunner,
) -> None:
    """The expired records contain the key as text, in the format of a uuid.

    There is no erasure request.
    """
    people.sql("UPDATE letter SET at = %s", [OLD])
    people.hold(HoldKind.SUBJECT, CAPITALS)
    people.run()
    assert ids(people, "letter") == {1}


def test_stored_record_keys_of_erasure_request_are_equal_for_uppercase_and_lowercase_uuid(
    people: RetentionRunner,
) -> None:
    """Names and digests of stored records do not depend on the spelling in the request."""
    kept = []
    for spelling in (UUID, CAPITALS):
        request = people.request(spelling)
        people.plan()
        query = "SELECT record_class, collection, key, found_by FROM erasure_request_record"
        kept.append(people.state_sql(f"{query} ORDER BY 1, 3"))
        with people.engine.begin() as conn:
            requests.withdraw(conn, people.clock, request, by="dpo", because="mistake")
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3
