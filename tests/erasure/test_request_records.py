"""Remembered records of open requests lead to the primary keys of these records."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from include.erasure.ledger import ErasureKeys
from include.erasure.request_records import NamedRecord, Namer, Reader, forget, keep, remembered
from include.erasure.requests import add, close
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.retention import RetentionRule
from include.services.clock import FixedClock
from include.services.errors import UsageError
from tests.evidence.support import START

OLD = ErasureKeys({"1": b"k" * 32}, "1")
KEYS = ErasureKeys({"1": b"k" * 32, "2": b"n" * 32}, "2")
CLOCK = FixedClock(START)
PLAIN = MappedField(name="id", categories=("user.unique_id",))
COLLECTIONS = {
    "contact": MappedCollection(name="contact", schema_name="public", table="contact", fields={}),
    "orders": MappedCollection(
        name="orders", schema_name="public", table="orders", fields={"id": PLAIN}
    ),
    "line": MappedCollection(name="line", schema_name="public", table="line", fields={}),
}
DATABASE = MappedDatabase(
    name="courier",
    title="Courier",
    connection="x",
    schema_name="public",
    site=None,
    rto=timedelta(hours=4),
    rpo=timedelta(hours=24),
    newest=(),
    collections=COLLECTIONS,
)
COLUMNS = {"contact": ["email"], "orders": ["id"], "line": ["hint", "n"]}


def rule(name: str, collection: str, *, on_request: bool = True) -> RetentionRule:
    return RetentionRule.model_validate(
        {
            "class": name,
            "title": {"en": name, "zh-CN": name},
            "collection": collection,
            "clock": "created_at",
            "period": "P3Y",
            "action": "delete",
            "basis": "business",
            "on_request": on_request,
            "keys": {"subject": "email"},
        }
    )


RULES = [
    rule("contact", "contact"),
    rule("order", "orders"),
    rule("invoice", "orders"),
    rule("statistics", "orders", on_request=False),
    rule("line", "line"),
]


@pytest.fixture
def reader(copy: psycopg.Connection[Any]) -> Reader:
    copy.execute("""
CREATE TABLE contact (email text PRIMARY KEY);
INSERT INTO contact VALUES ('a@x.cn'), ('b@x.cn'), ('c@x.cn');
CREATE TABLE orders (id int PRIMARY KEY);
CREATE TABLE line (hint text, n int, PRIMARY KEY (hint, n));
INSERT INTO line VALUES ('hmac:x', 1)
""")
    return Reader(copy, DATABASE, KEYS, RULES)


def named(
    collection: str, *key: str, record_class: str = "", keys: ErasureKeys = KEYS
) -> NamedRecord:
    namer = Namer(keys, DATABASE, collection, COLUMNS[collection], ())
    name = {"contact": "contact", "orders": "order", "line": "line"}[collection]
    return NamedRecord(1, record_class or name, collection, namer.name(key), "by")


def test_keys_come_back_from_clear_names_and_from_digests_of_every_key(reader: Reader) -> None:
    """Leave out a digest that no record has, and go on with the names after it."""
    gone, current = named("contact", "gone@x.cn"), named("contact", "b@x.cn")
    older, order = named("contact", "a@x.cn", keys=OLD), named("orders", "7")
    line = named("line", "hmac:x", "1")
    records = [
        (subject, record)
        for subject, record in zip("abcde", [gone, current, older, order, line], strict=True)
    ]
    assert reader.keys_of(records) == {
        current: ("b@x.cn",),
        older: ("a@x.cn",),
        order: ("7",),
        line: ("hmac:x", "1"),
    }
    by_class = reader.records(records).by_class
    assert {
        name: [(it.subject, it.keys) for it in groups] for name, groups in by_class.items()
    } == {
        "contact": [("b", (("b@x.cn",),)), ("c", (("a@x.cn",),))],
        "order": [("d", (("7",),))],
        "line": [("e", (("hmac:x", "1"),))],
    }


def test_clear_key_of_two_columns_that_begins_like_a_digest_is_no_digest(
    copy: psycopg.Connection[Any],
) -> None:
    """Only a name of one part can be a digest."""
    fields = {name: PLAIN.model_copy(update={"name": name}) for name in COLUMNS["line"]}
    line = COLLECTIONS["line"].model_copy(update={"fields": fields})
    database = DATABASE.model_copy(update={"collections": {"line": line}})
    name = Namer(KEYS, database, "line", COLUMNS["line"], ()).name(["hmac:x", "1"])
    record = NamedRecord(1, "line", "line", name, "by")
    reader = Reader(copy, database, KEYS, RULES)
    assert reader.keys_of([("s", record)]) == {record: ("hmac:x", "1")}


def test_digest_of_a_key_that_is_lost_is_refused(reader: Reader) -> None:
    """Without the key of the HMAC, no record can be told from the digest."""
    lost = ErasureKeys({"0": b"o" * 32}, "0")
    with pytest.raises(UsageError):
        reader.keys_of([("s", named("contact", "a@x.cn", keys=lost))])


@pytest.mark.parametrize(
    ("record_class", "classes"),
    [
        ("invoice", {"invoice"}),
        ("renamed", {"order", "invoice"}),
        ("statistics", {"order", "invoice"}),
    ],
)
def test_renamed_class_counts_as_each_class_that_a_request_erases(
    reader: Reader, record_class: str, classes: set[str]
) -> None:
    """A class that requests do not erase gets no record."""
    record = named("orders", "7", record_class=record_class)
    assert set(reader.records([("s", record)]).by_class) == classes
    assert reader.is_erased_on_request(record)
    assert not reader.is_erased_on_request(replace(record, collection="unknown"))


def test_record_is_gone_when_none_of_its_classes_has_it(reader: Reader) -> None:
    """Of a collection that no request erases, nothing is known."""
    order, contact = named("orders", "7", record_class="renamed"), named("contact", "gone@x.cn")
    unknown = replace(order, collection="unknown")
    records = [("s", order), ("s", contact), ("s", unknown)]
    assert reader.gone(records, set()) == [order, contact]
    assert reader.gone(records, {("invoice", ("7",))}) == [contact]
    assert reader.gone(records, {("order", ("8",)), ("contact", ("7",))}) == [order, contact]


def test_only_open_requests_keep_records(ledger: Connection) -> None:
    """Repeating changes nothing, and forgetting one leaves the others."""
    common = {"database": "courier", "reference": "R", "received_on": START.date()}
    first, second = (
        add(ledger, CLOCK, subject=subject, entered_by="privacy", **common) for subject in "ab"
    )
    ours = [
        NamedRecord(first.id, name, "orders", key, "by")
        for name, key in [("order", '["1"]'), ("order", '["2"]'), ("invoice", '["1"]')]
    ]
    theirs = replace(ours[0], request_id=second.id)
    keep(ledger, CLOCK, [*ours, theirs])
    keep(ledger, CLOCK, [ours[0]])
    assert {record for _subject, record in remembered(ledger, "courier")} == {*ours, theirs}
    assert [subject for subject, _record in remembered(ledger, "courier")] == ["a", "a", "a", "b"]
    forget(ledger, [ours[0]])
    assert {record for _subject, record in remembered(ledger, "courier")} == {*ours[1:], theirs}
    close(ledger, CLOCK, first.id, closed_by="run", because="erased")
    keep(ledger, CLOCK, [*ours, theirs])
    assert [record for _subject, record in remembered(ledger, "courier")] == [theirs]
    assert remembered(ledger, "billing") == []
