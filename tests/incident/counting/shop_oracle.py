"""A sample shop with difficult tables, and the expected counts computed in plain Python.

Documents name two people and have their own department. Memos have only a date and no foreign key.
Tags have no time. Sensitive data is in a column, in JSON and in documents.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from include.incident.rules import (
    AccessLog,
    Lookup,
    Records,
    ScopeRule,
    ShareLog,
    Subject,
)
from include.incident.scope import DatabaseCount
from include.incident.selection import Selection
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField

ZONE = ZoneInfo("Asia/Shanghai")
MOMENT = datetime(2026, 3, 1, 9, tzinfo=ZONE)
SENSITIVE = ("user.health_and_medical", "user.biometric")
UNITS = {1: "North", 2: "South"}
CLERKS = {1: "ann", 2: "bob"}
SCHEMA = """
CREATE TABLE unit (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE clerk (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE person (id integer PRIMARY KEY, mail text, born date, unit_id integer REFERENCES unit,
    secret text, extra jsonb, joined timestamptz);
CREATE TABLE doc (id integer PRIMARY KEY, no text, writer integer REFERENCES person,
    reader integer REFERENCES person, made timestamp, unit text, words text, code text);
CREATE TABLE memo (id integer PRIMARY KEY, person integer, day date, words text);
CREATE TABLE tag (id integer PRIMARY KEY, person integer REFERENCES person, words text);
CREATE TABLE opened (id integer PRIMARY KEY, clerk integer, person integer, at timestamptz);
CREATE TABLE seen (id integer PRIMARY KEY, clerk integer, person integer REFERENCES person,
    at timestamptz);
CREATE TABLE given (id integer PRIMARY KEY, partner integer, person integer, at timestamptz);
INSERT INTO unit VALUES (1, 'North'), (2, 'South');
INSERT INTO clerk VALUES (1, 'ann'), (2, 'bob');
"""
TABLES = ("person", "doc", "memo", "tag", "opened", "seen", "given")


def _collection(name: str, /, **fields: str | MappedField) -> MappedCollection:
    fields_by_name = {
        field: category if isinstance(category, MappedField)
        else MappedField(
            name=field, categories=(category,) if category else (), primary_key=field == "id"
        )
        for field, category in fields.items()
    }  # fmt: skip
    return MappedCollection(name=name, schema_name="public", table=name, fields=fields_by_name)


EXTRA = MappedField(
    name="extra",
    categories=("system.operations",),
    fields={"blood": MappedField(name="blood", categories=("user.biometric.blood",))},
)
SHOP = MappedDatabase(
    name="shop",
    title=verbatim("Shop"),
    connection="shop_db",
    schema_name="public",
    rto=timedelta(hours=1),
    rpo=timedelta(hours=1),
    collections={
        collection.name: collection
        for collection in (
            _collection("unit", id="", name=""),
            _collection("clerk", id="", name="user.workplace"),
            _collection(
                "person", id="user.unique_id", mail="user.contact.email",
                born="user.demographic.date_of_birth", unit_id="",
                secret="user.health_and_medical.record", extra=EXTRA, joined="user.account",
            ),
            _collection(
                "doc", id="", no="user.unique_id", writer="user.unique_id", reader="",
                made="", unit="", words="user.content.private", code="user.health_and_medical",
            ),
            _collection("memo", id="", person="user.unique_id", day="", words="user.contact.email"),
            _collection("tag", id="", person="", words="user.name"),
            _collection("opened", id="", clerk="", person="", at=""),
            _collection("seen", id="", clerk="", person="", at=""),
            _collection("given", id="", partner="", person="", at=""),
        )
    },
)  # fmt: skip
_RECORDS = (
    Records(collection="person", subjects=("r.id",), at="r.joined"),
    Records(
        collection="doc",
        subjects=("r.writer", "r.reader"),
        at="r.made",
        department="r.unit",
        named=("r.id", "r.no"),
    ),
    Records(collection="tag", subjects=("r.person",)),
    Records(collection="memo", subjects=("r.person",), at="r.day"),
)
RULE = ScopeRule(
    database="shop",
    subject=Subject(
        collection="person",
        key="id",
        minor="s.born > :moment - interval '14 years'",
        department=Lookup(column="unit_id", collection="unit", key="id", name="name"),
        mail="mail",
    ),
    records=_RECORDS,
    access=AccessLog(
        collection="opened",
        subject="a.person",
        account=Lookup(column="clerk", collection="clerk", key="id", name="name"),
        at="at",
        columns=("id",),
    ),
    shares=ShareLog(
        collection="given", subject="g.person", partner="g.partner", at="at", columns=("id",)
    ),
)
assert RULE.access is not None
LINKED = RULE.model_copy(
    update={
        "records": _RECORDS[:3],
        "access": RULE.access.model_copy(update={"collection": "seen"}),
    }
)
"""Without memos, and with another log: foreign keys link all people to the subject table."""


@dataclass
class Rows:
    """The rows of the shop by table, with columns as in ``SCHEMA``."""

    person: list[tuple[Any, ...]] = field(default_factory=list)
    doc: list[tuple[Any, ...]] = field(default_factory=list)
    memo: list[tuple[Any, ...]] = field(default_factory=list)
    tag: list[tuple[Any, ...]] = field(default_factory=list)
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    seen: list[tuple[Any, ...]] = field(default_factory=list)
    given: list[tuple[Any, ...]] = field(default_factory=list)

    def put(self, connection: psycopg.Connection[Any]) -> None:
        """Insert the rows into the tables of the shop, which must be empty."""
        for table in TABLES:
            for row in getattr(self, table):
                marks = ", ".join(["%s"] * len(row))
                connection.execute(f"INSERT INTO {table} VALUES ({marks})".encode(), row)


@dataclass
class _Record:
    """A row of any table with the values from which the expected counts are computed."""

    keys: list[int]
    begins: datetime | None  # time of the row; a date has a begin and an end
    ends: datetime | None
    departments: set[str | None] | None  # None: departments of its people
    names: set[str]
    values: set[str]
    moment: datetime | None


def expected(rows: Rows, selection: Selection, rule: ScopeRule) -> DatabaseCount:
    """Return the expected counts of the affected records, computed by a loop over all rows.

    Args:
        rows: rows of the shop's tables.
        selection: criteria of affected records.
        rule: rule of the shop's database in incident.yaml.
    """
    units = {record[0]: UNITS.get(record[3]) for record in rows.person}
    collections = selection.collections_of(rule)
    filters = (
        selection.since,
        selection.until,
        selection.departments,
        selection.accounts,
        selection.partner,
    )
    has_filters = not selection.keys or any(filters)
    logged, entries = _logged(rows, selection, rule)
    people_listed = {int(key) for key in selection.keys if key.lstrip("-").isdigit()}
    listed = set() if selection.keys_of else people_listed
    values_by_person: dict[int, set[str]] = defaultdict(set)
    records: dict[str, int] = {}
    undated, moments, names = 0, [], set()
    for name, table_records in _records(rows, rule).items():
        if name not in collections and selection.keys_of != f"shop.{name}":
            continue
        records[name] = 0
        for record in table_records:
            people: set[int] = set()
            is_affected = False
            if has_filters and name in collections and _selected(record, selection, units):
                people = set(record.keys) if logged is None else set(record.keys) & logged
                is_affected = logged is None or bool(people)
            if selection.keys_of == f"shop.{name}" and record.names & set(selection.keys):
                people, is_affected = set(record.keys), True
                names |= record.names
            if name in collections and set(record.keys) & listed:
                people |= set(record.keys) & listed
                names |= {str(key) for key in record.keys}
                is_affected = True
            if not is_affected:
                continue
            records[name] += 1
            undated += record.moment is None and name != "tag"
            moments += [record.moment] if record.moment else []
            for key in people:
                values_by_person[key] |= record.values
    for key in listed & set(units):
        values_by_person[key] |= set()
        names.add(str(key))
    if logged is not None and not selection.departments and not selection.collections:
        for key in logged:
            values_by_person[key] |= set()
    return _counted(
        rows,
        selection,
        rule,
        values_by_person,
        records,
        undated,
        moments,
        entries,
        names,
        has_filters,
    )


def _counted(
    rows: Rows,
    chosen: Selection,
    rule: ScopeRule,
    values_by_person: dict[int, set[str]],
    records: dict[str, int],
    undated: int,
    moments: list[datetime],
    entries: list[tuple[Any, ...]],
    names: set[str],
    main: bool,
) -> DatabaseCount:
    persons = {person_row[0]: person_row for person_row in rows.person}
    born = {key: persons[key][2] if key in persons else None for key in values_by_person}
    limit = MOMENT.replace(year=MOMENT.year - 14)
    sensitive = {
        "user.health_and_medical",
        "user.health_and_medical.record",
        "user.biometric.blood",
    }
    categories: dict[str, int] = defaultdict(int)
    departments: dict[str, int] = defaultdict(int)
    for key, values in values_by_person.items():
        for value in values:
            categories[value] += 1
        if key in persons and persons[key][3]:
            departments[UNITS[persons[key][3]]] += 1
    missing = [at for at, key in enumerate(chosen.keys, 1) if key not in names]
    accounts = {name: set() for name in chosen.accounts}
    for clerk, person in ((entry[1], entry[2]) for entry in entries if entry[0] == "opened"):
        if person is not None:
            accounts[CLERKS[clerk]].add(person)
    collections = set(chosen.collections_of(rule))
    is_complete = {record.collection for record in rule.records} == collections
    dated = [entry[3] for entry in entries if entry[3]]
    narrowing = (chosen.since, chosen.until, chosen.departments, chosen.accounts, chosen.partner)
    narrowed = any(narrowing) or bool(chosen.keys)
    tagged = "tag" in collections and main and not chosen.accounts
    blurred = tagged and chosen.partner is None and bool(chosen.since or chosen.until)
    linked = "memo" not in collections  # only memos have no foreign key
    everybody = main and linked and "person" in collections and not any(narrowing)
    young = {
        key
        for key, person_row in born.items()
        if person_row is not None
        and datetime(person_row.year, person_row.month, person_row.day, tzinfo=ZONE) > limit
    }
    return DatabaseCount(
        database="shop",
        everything=is_complete and not narrowed,
        subjects=len(values_by_person),
        records=records,
        categories=dict(sorted(categories.items())),
        sensitive=sum(
            bool(values & sensitive) or key in young for key, values in values_by_person.items()
        ),
        minors=len(young),
        age_unknown=sum(person_row is None for person_row in born.values()),
        unlisted=len(set(values_by_person) - set(persons)),
        undated=undated,
        first=min(moments, default=None),
        last=max(moments, default=None),
        departments={} if everybody else dict(departments),
        accounts={name: len(keys) for name, keys in accounts.items()},
        log_rows=len(entries),
        log_first=min(dated, default=None),
        log_last=max(dated, default=None),
        not_narrowed=("tag",) if blurred else (),
        listed=len(chosen.keys),
        not_found=len(missing),
        not_found_at=tuple(missing),
    )


def _logged(
    rows: Rows, chosen: Selection, rule: ScopeRule
) -> tuple[set[int] | None, list[tuple[Any, ...]]]:
    """Return the people named by log entries, and these entries.

    Only log entries to which the criteria apply are used. Each entry is a tuple of log, account,
    person and time. If the criteria use no log, the first value is None.

    Args:
        rows: rows of the shop's tables.
        chosen: criteria of affected records.
        rule: rule of the shop's database in incident.yaml.
    """
    sets, entries = [], []

    def inside(at: datetime | None) -> bool:
        return at is None or _between(at, at, chosen)

    if chosen.accounts:
        matching = [
            ("opened", clerk, person, at)
            for _, clerk, person, at in (rows.seen if rule is LINKED else rows.opened)
            if CLERKS.get(clerk) in chosen.accounts and inside(at)
        ]
        entries += matching
        sets.append({entry[2] for entry in matching if entry[2] is not None})
    if chosen.partner is not None:
        matching = [
            ("given", None, person, at)
            for _, partner, person, at in rows.given
            if str(partner) == chosen.partner and inside(at)
        ]
        entries += matching
        sets.append({entry[2] for entry in matching if entry[2] is not None})
    return (set.intersection(*sets) if sets else None), entries


def _selected(record: _Record, chosen: Selection, units: dict[int, str | None]) -> bool:
    by_log = bool(chosen.accounts) or chosen.partner is not None
    if (
        not by_log
        and record.begins
        and record.ends
        and not _between(record.begins, record.ends, chosen)
    ):
        return False
    if chosen.departments:
        answer = record.departments
        if answer is None:
            answer = {units.get(key) for key in record.keys}
        return bool(answer & set(chosen.departments))
    return True


def _between(begins: datetime, ends: datetime, chosen: Selection) -> bool:
    """Return whether a period overlaps the time window of the criteria.

    Args:
        begins: start of the period.
        ends: end of the period.
        chosen: criteria of affected records.
    """
    return not (chosen.since and ends < chosen.since) and not (
        chosen.until and begins >= chosen.until
    )


def _records(rows: Rows, rule: ScopeRule) -> dict[str, list[_Record]]:
    records: dict[str, list[_Record]] = {record.collection: [] for record in rule.records}
    for key, mail, born, _unit, secret, extra, joined in rows.person:
        blood = bool(extra.obj.get("blood")) if extra else False
        values = {
            "user.unique_id": True, "user.contact.email": mail, "user.account": joined,
            "user.demographic.date_of_birth": born, "user.health_and_medical.record": secret,
            "user.biometric.blood": blood,
        }  # fmt: skip
        records["person"].append(_Record([key], joined, joined, None, set(), _of(values), joined))
    for key, no, writer, reader, written_at, unit, words, code in rows.doc:
        at = written_at.replace(tzinfo=ZONE) if written_at else None
        values = {
            "user.unique_id": no or writer is not None, "user.content.private": words,
            "user.health_and_medical": code,
        }  # fmt: skip
        keys = [person for person in (writer, reader) if person is not None]
        names = {str(key), *((no,) if no is not None else ())}
        records["doc"].append(_Record(keys, at, at, {unit}, names, _of(values), at))
    for _key, person, words in rows.tag:
        keys = [] if person is None else [person]
        values = {"user.name": words}
        records["tag"].append(_Record(keys, None, None, None, set(), _of(values), None))
    for _key, person, day, words in rows.memo if "memo" in records else ():
        keys = [] if person is None else [person]
        values = {"user.unique_id": person is not None, "user.contact.email": words}
        begins = ends = None
        if day:
            begins = datetime(day.year, day.month, day.day, tzinfo=ZONE)
            ends = begins + timedelta(days=1, microseconds=-1)
        records["memo"].append(_Record(keys, begins, ends, None, set(), _of(values), begins))
    return records


def _of(values: dict[str, Any]) -> set[str]:
    return {name for name, value in values.items() if value}


def day(text: str) -> date:
    """Parse a date."""
    return date.fromisoformat(text)
