"""Requests by keys of each type: records are erased, held and counted however the key is typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from include.erasure import requests
from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from tests.retention.kills import Killed
from tests.retention.linked import Schema, found_by, linked_rig
from tests.retention.postgres.test_key_types import TYPED, TYPES, UUID
from tests.retention.rig import OLD, YOUNG, Rig, rule

CAPITALS = UUID.upper()
OTHER = UUID.replace("a0", "a1")
# Requests with numbers that are not written as a server prints them match no numeric key.
REQUESTED = [
    (kind, key, other, "7" if typed == "007" else typed) for kind, key, other, typed in TYPED
]


def states(record: StepRecord) -> list[str]:
    """Return what became of the requests, oldest first."""
    ordered = sorted(record.data["requests"], key=lambda request: request["request"])
    return [request["state"] for request in ordered]


def ids(rig: Rig, table: str) -> set[int]:
    """Return the primary keys that a table has."""
    return {row[0] for row in rig.sql(f"SELECT id FROM {table}".encode())}


def tables(types: Sequence[str], *more: str) -> Schema:
    """Return tables ``t0``, ``t1``, ... erased on request by a key ``k`` of some types."""
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
def people(postgres: EmbeddedPostgres) -> Iterator[Rig]:
    """Two people, by a uuid in one table and by its text in another; homes are found by the first.

    Number 1 has the key `UUID`.
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
    with linked_rig(postgres, schema) as rig:
        for number, key in ((1, UUID), (2, OTHER)):
            rig.insert("home", id=number, at=YOUNG)
            rig.insert("client", id=number, at=YOUNG, k=key, home=number)
            rig.insert("letter", id=number, at=YOUNG, k=key)
        yield rig


def left(rig: Rig) -> list[set[int]]:
    """Return the clients, homes and letters that are left."""
    return [ids(rig, name) for name in ("client", "home", "letter")]


def test_request_erases_records_however_the_key_is_typed(postgres: EmbeddedPostgres) -> None:
    """Each class is searched for all requests, and loses only the records of its own request."""
    schema = tables([kind for kind, *_ in REQUESTED])
    with linked_rig(postgres, Schema(TYPES + schema.tables, schema.keys, schema.rules)) as rig:
        for at, (_kind, key, other, typed) in enumerate(REQUESTED):
            for number, value in ((1, key), (2, other), (3, None)):
                rig.insert(f"t{at}", id=number, at=YOUNG, k=value)
            rig.request(f"courier/{typed}", entered_by=f"dpo{at}")
        *_, counted = rig.run()
        names = [f"{kind} {typed}" for kind, _key, _other, typed in REQUESTED]
        remaining = {name: ids(rig, f"t{at}") for at, name in enumerate(names)}
        assert remaining == {name: {2, 3} for name in names}
        assert set(states(counted)) == {"closed"}


def test_request_erases_records_in_classes_with_keys_of_several_types(people: Rig) -> None:
    """A text column has the key as the uuid column prints it; all letters are erased."""
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
def test_request_erases_the_text_copy_of_a_device_or_binary_key(
    postgres: EmbeddedPostgres, key_type: str, key: str, typed: str
) -> None:
    """A text column has the key as PostgreSQL prints it, and not as the request spells it."""
    with linked_rig(postgres, tables([key_type, "text"])) as rig:
        for name in ("t0", "t1"):
            rig.insert(name, id=1, at=YOUNG, k=key)
        rig.request(typed)
        *_, counted = rig.run()
        assert [ids(rig, name) for name in ("t0", "t1")] == [set(), set()]
        assert states(counted) == ["closed"]


def test_request_of_earlier_version_is_found_by_the_next_run(people: Rig) -> None:
    """Two requests of one person, in two spellings, are closed together."""
    people.request(CAPITALS)
    people.request(UUID)
    assert states(people.run()[-1]) == ["closed", "closed"]
    assert left(people) == [{2}, {2}, {2}]


@pytest.mark.parametrize("key_type", ["int", "numeric"])
def test_number_with_leading_zeros_erases_no_record_by_number(
    postgres: EmbeddedPostgres, key_type: str
) -> None:
    """The code 0012 is not the number 12: another person may have it."""
    with linked_rig(postgres, tables([key_type, "text"])) as rig:
        for name in ("t0", "t1"):
            rig.insert(name, id=1, at=YOUNG, k="12")
        rig.insert("t1", id=2, at=YOUNG, k="0012")
        rig.request("0012")
        *_, counted = rig.run()
        assert [ids(rig, name) for name in ("t0", "t1")] == [{1}, {1}]
        assert states(counted) == ["closed"]


@pytest.mark.parametrize(("subject", "held"), [(CAPITALS, UUID), (UUID, CAPITALS)])
def test_hold_keeps_all_records_of_request_in_another_spelling(
    people: Rig, subject: str, held: str
) -> None:
    """The hold is on the person; the request stays open and restricted."""
    people.request(subject)
    people.hold(HoldKind.SUBJECT, held)
    planned, *_, counted = people.run()
    assert left(people) == [{1, 2}, {1, 2}, {1, 2}]
    assert states(counted) == ["restricted"]
    assert {it["name"]: it["held"] for it in planned.data["classes"]} == {
        "client": 1, "home": 1, "letter": 1,
    }  # fmt: skip


def test_hold_in_another_spelling_keeps_remembered_record_whose_link_is_gone(people: Rig) -> None:
    """The client is erased first; a hold that is placed afterwards keeps the home too."""
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


def test_record_that_belongs_to_another_person_now_is_not_erased(people: Rig) -> None:
    """A home whose client goes to another person before the run ends restricts the request."""
    request = people.request(CAPITALS)
    planned = people.plan()
    people.sql("UPDATE client SET k = %s", [OTHER])
    people.sql("UPDATE letter SET k = %s", [OTHER])
    executed = people.execute(planned)
    assert left(people) == [{1, 2}, {1, 2}, {1, 2}]
    counted = people.verify(planned, executed)
    assert (counted.data["requests"][0]["request"], states(counted)) == (request, ["restricted"])
    assert counted.data["requests"][0]["taken_over"] == 3


def test_hold_on_text_keeps_it_in_the_spelling_of_other_classes(people: Rig) -> None:
    """Without any request: the letters are expired, and have the key as a UUID is printed."""
    people.sql("UPDATE letter SET at = %s", [OLD])
    people.hold(HoldKind.SUBJECT, CAPITALS)
    people.run()
    assert ids(people, "letter") == {1}


def test_keys_of_remembered_records_keep_their_names(people: Rig) -> None:
    """Names and digests do not depend on how the request is typed."""
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
