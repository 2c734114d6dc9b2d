"""Tests of the records that runs store for erasure requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from include.erasure.ledger import ErasureKeys
from include.erasure.request_records import (
    NamedRecord,
    RecordNamer,
    RecordReader,
    delete_records,
    load_records,
    store_records,
)
from include.erasure.requests import add, close
from include.messages import verbatim
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
    title=verbatim("Courier"),
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
def reader(copy: psycopg.Connection[Any]) -> RecordReader:
    copy.execute("""
CREATE TABLE contact (email text PRIMARY KEY);
INSERT INTO contact VALUES ('a@x.cn'), ('b@x.cn'), ('c@x.cn');
CREATE TABLE orders (id int PRIMARY KEY);
CREATE TABLE line (hint text, n int, PRIMARY KEY (hint, n));
INSERT INTO line VALUES ('hmac:x', 1)
""")
    return RecordReader(copy, DATABASE, KEYS, RULES)


def named_record(
    collection: str, *key: str, record_class: str = "", keys: ErasureKeys = KEYS
) -> NamedRecord:
    namer = RecordNamer(keys, DATABASE, collection, COLUMNS[collection], ())
    name = {"contact": "contact", "orders": "order", "line": "line"}[collection]
    return NamedRecord(1, record_class or name, collection, namer.name(key), "by")


def test_record_reader_returns_primary_keys_of_records_named_by_plain_text_or_by_digest(
    reader: RecordReader,
) -> None:
    """A digest that matches no record is left out."""
    gone, current = named_record("contact", "gone@x.cn"), named_record("contact", "b@x.cn")
    older, order = named_record("contact", "a@x.cn", keys=OLD), named_record("orders", "7")
    line = named_record("line", "hmac:x", "1")
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


def test_record_reader_reads_a_composite_key_that_begins_with_hmac_as_plain_text(
    copy: psycopg.Connection[Any],
) -> None:
    fields = {name: PLAIN.model_copy(update={"name": name}) for name in COLUMNS["line"]}
    line = COLLECTIONS["line"].model_copy(update={"fields": fields})
    database = DATABASE.model_copy(update={"collections": {"line": line}})
    name = RecordNamer(KEYS, database, "line", COLUMNS["line"], ()).name(["hmac:x", "1"])
    record = NamedRecord(1, "line", "line", name, "by")
    reader = RecordReader(copy, database, KEYS, RULES)
    assert reader.keys_of([("s", record)]) == {record: ("hmac:x", "1")}


def test_record_reader_fails_if_hmac_key_of_digest_is_missing(reader: RecordReader) -> None:
    lost = ErasureKeys({"0": b"o" * 32}, "0")
    with pytest.raises(UsageError):
        reader.keys_of([("s", named_record("contact", "a@x.cn", keys=lost))])


@pytest.mark.parametrize(
    ("record_class", "classes"),
    [
        ("invoice", {"invoice"}),
        ("renamed", {"order", "invoice"}),
        ("statistics", {"order", "invoice"}),
    ],
)
def test_record_of_a_renamed_record_class_is_returned_in_all_classes_that_are_erased_on_request(
    reader: RecordReader, record_class: str, classes: set[str]
) -> None:
    record = named_record("orders", "7", record_class=record_class)
    assert set(reader.records([("s", record)]).by_class) == classes
    assert reader.is_erased_on_request(record)
    assert not reader.is_erased_on_request(replace(record, collection="unknown"))


def test_function_deleted_records_returns_stored_records_that_no_record_class_contains_any_more(
    reader: RecordReader,
) -> None:
    """Records of a collection that is not erased on request are left out."""
    order, contact = (
        named_record("orders", "7", record_class="renamed"),
        named_record("contact", "gone@x.cn"),
    )
    unknown = replace(order, collection="unknown")
    records = [("s", order), ("s", contact), ("s", unknown)]
    assert reader.deleted_records(records, set()) == [order, contact]
    assert reader.deleted_records(records, {("invoice", ("7",))}) == [contact]
    assert reader.deleted_records(records, {("order", ("8",)), ("contact", ("7",))}) == [
        order,
        contact,
    ]


def test_store_records_ignores_records_of_closed_erasure_requests(ledger: Connection) -> None:
    """Storing a record again changes nothing, and deleting one record keeps the other records."""
    common = {"database": "courier", "reference": "R", "received_on": START.date()}
    first, second = (
        add(ledger, CLOCK, subject=subject, entered_by="privacy", **common) for subject in "ab"
    )
    ours = [
        NamedRecord(first.id, name, "orders", key, "by")
        for name, key in [("order", '["1"]'), ("order", '["2"]'), ("invoice", '["1"]')]
    ]
    theirs = replace(ours[0], request_id=second.id)
    store_records(ledger, CLOCK, [*ours, theirs])
    store_records(ledger, CLOCK, [ours[0]])
    assert {record for _subject, record in load_records(ledger, "courier")} == {*ours, theirs}
    assert [subject for subject, _record in load_records(ledger, "courier")] == ["a", "a", "a", "b"]
    delete_records(ledger, [ours[0]])
    assert {record for _subject, record in load_records(ledger, "courier")} == {*ours[1:], theirs}
    close(ledger, CLOCK, first.id, closed_by="run", because="erased")
    store_records(ledger, CLOCK, [*ours, theirs])
    assert [record for _subject, record in load_records(ledger, "courier")] == [theirs]
    assert load_records(ledger, "billing") == []
