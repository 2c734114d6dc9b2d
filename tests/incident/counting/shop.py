"""A small company whose tables are awkward, and what is affected in it by plain Python.

Documents name two people and have a department of their own; memos have only a day and no foreign
key; tags have no moment; sensitive information stands in a column, in JSON and on documents.
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
from include.incident.scope import Counted
from include.incident.selection import Selection
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


def _collection(called: str, /, **fields: str | MappedField) -> MappedCollection:
    made = {
        field: said if isinstance(said, MappedField)
        else MappedField(name=field, categories=(said,) if said else (), primary_key=field == "id")
        for field, said in fields.items()
    }  # fmt: skip
    return MappedCollection(name=called, schema_name="public", table=called, fields=made)


EXTRA = MappedField(
    name="extra",
    categories=("system.operations",),
    fields={"blood": MappedField(name="blood", categories=("user.biometric.blood",))},
)
SHOP = MappedDatabase(
    name="shop",
    title="Shop",
    connection="shop_db",
    schema_name="public",
    rto=timedelta(hours=1),
    rpo=timedelta(hours=1),
    collections={
        one.name: one
        for one in (
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
"""Without memos, and with another log: whom these name stands in the collection of people."""


@dataclass
class Rows:
    """The rows of the shop, by table; columns as in ``SCHEMA``."""

    person: list[tuple[Any, ...]] = field(default_factory=list)
    doc: list[tuple[Any, ...]] = field(default_factory=list)
    memo: list[tuple[Any, ...]] = field(default_factory=list)
    tag: list[tuple[Any, ...]] = field(default_factory=list)
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    seen: list[tuple[Any, ...]] = field(default_factory=list)
    given: list[tuple[Any, ...]] = field(default_factory=list)

    def put(self, connection: psycopg.Connection[Any]) -> None:
        """Write them into empty tables."""
        for table in TABLES:
            for row in getattr(self, table):
                marks = ", ".join(["%s"] * len(row))
                connection.execute(f"INSERT INTO {table} VALUES ({marks})".encode(), row)


@dataclass
class _Record:
    """One row as the oracle sees it."""

    keys: list[int]
    begins: datetime | None  # when it was made; a day begins and ends
    ends: datetime | None
    departments: set[str | None] | None  # None: those of its people
    names: set[str]
    values: set[str]
    moment: datetime | None


def expected(rows: Rows, chosen: Selection, rule: ScopeRule) -> Counted:
    """What is affected, by going through all rows one by one."""
    units = {one[0]: UNITS.get(one[3]) for one in rows.person}
    where = chosen.collections_of(rule)
    narrowing = (chosen.since, chosen.until, chosen.departments, chosen.accounts, chosen.partner)
    main = not chosen.keys or any(narrowing)
    logged, entries = _logged(rows, chosen, rule)
    people_listed = {int(one) for one in chosen.keys if one.lstrip("-").isdigit()}
    listed = set() if chosen.keys_of else people_listed
    found: dict[int, set[str]] = defaultdict(set)
    records: dict[str, int] = {}
    undated, moments, names = 0, [], set()
    for name, made in _records(rows, rule).items():
        if name not in where and chosen.keys_of != f"shop.{name}":
            continue
        records[name] = 0
        for one in made:
            hit: set[int] = set()
            row = False
            if main and name in where and _selected(one, chosen, units):
                hit = set(one.keys) if logged is None else set(one.keys) & logged
                row = logged is None or bool(hit)
            if chosen.keys_of == f"shop.{name}" and one.names & set(chosen.keys):
                hit, row = set(one.keys), True
                names |= one.names
            if name in where and set(one.keys) & listed:
                hit |= set(one.keys) & listed
                names |= {str(key) for key in one.keys}
                row = True
            if not row:
                continue
            records[name] += 1
            undated += one.moment is None and name != "tag"
            moments += [one.moment] if one.moment else []
            for key in hit:
                found[key] |= one.values
    for key in listed & set(units):
        found[key] |= set()
        names.add(str(key))
    if logged is not None and not chosen.departments and not chosen.collections:
        for key in logged:
            found[key] |= set()
    return _counted(rows, chosen, rule, found, records, undated, moments, entries, names, main)


def _counted(
    rows: Rows,
    chosen: Selection,
    rule: ScopeRule,
    found: dict[int, set[str]],
    records: dict[str, int],
    undated: int,
    moments: list[datetime],
    entries: list[tuple[Any, ...]],
    names: set[str],
    main: bool,
) -> Counted:
    persons = {one[0]: one for one in rows.person}
    born = {key: persons[key][2] if key in persons else None for key in found}
    limit = MOMENT.replace(year=MOMENT.year - 14)
    sensitive = {
        "user.health_and_medical",
        "user.health_and_medical.record",
        "user.biometric.blood",
    }
    categories: dict[str, int] = defaultdict(int)
    departments: dict[str, int] = defaultdict(int)
    for key, values in found.items():
        for one in values:
            categories[one] += 1
        if key in persons and persons[key][3]:
            departments[UNITS[persons[key][3]]] += 1
    lost = [at for at, key in enumerate(chosen.keys, 1) if key not in names]
    accounts = {name: set() for name in chosen.accounts}
    for clerk, person in ((one[1], one[2]) for one in entries if one[0] == "opened"):
        if person is not None:
            accounts[CLERKS[clerk]].add(person)
    there = set(chosen.collections_of(rule))
    whole = {one.collection for one in rule.records} == there
    dated = [one[3] for one in entries if one[3]]
    narrowing = (chosen.since, chosen.until, chosen.departments, chosen.accounts, chosen.partner)
    narrowed = any(narrowing) or bool(chosen.keys)
    tagged = "tag" in there and main and not chosen.accounts
    blurred = tagged and chosen.partner is None and bool(chosen.since or chosen.until)
    linked = "memo" not in there  # it alone has no foreign key
    everybody = main and linked and "person" in there and not any(narrowing)
    young = {
        key
        for key, one in born.items()
        if one is not None and datetime(one.year, one.month, one.day, tzinfo=ZONE) > limit
    }
    return Counted(
        database="shop",
        everything=whole and not narrowed,
        subjects=len(found),
        records=records,
        categories=dict(sorted(categories.items())),
        sensitive=sum(bool(values & sensitive) or key in young for key, values in found.items()),
        minors=len(young),
        age_unknown=sum(one is None for one in born.values()),
        unlisted=len(set(found) - set(persons)),
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
        not_found=len(lost),
        not_found_at=tuple(lost),
    )


def _logged(
    rows: Rows, chosen: Selection, rule: ScopeRule
) -> tuple[set[int] | None, list[tuple[Any, ...]]]:
    """People whom the logs name, and their entries: log, account, person, moment."""
    sets, entries = [], []

    def inside(at: datetime | None) -> bool:
        return at is None or _between(at, at, chosen)

    if chosen.accounts:
        mine = [
            ("opened", clerk, person, at)
            for _, clerk, person, at in (rows.seen if rule is LINKED else rows.opened)
            if CLERKS.get(clerk) in chosen.accounts and inside(at)
        ]
        entries += mine
        sets.append({one[2] for one in mine if one[2] is not None})
    if chosen.partner is not None:
        mine = [
            ("given", None, person, at)
            for _, partner, person, at in rows.given
            if str(partner) == chosen.partner and inside(at)
        ]
        entries += mine
        sets.append({one[2] for one in mine if one[2] is not None})
    return (set.intersection(*sets) if sets else None), entries


def _selected(one: _Record, chosen: Selection, units: dict[int, str | None]) -> bool:
    by_log = bool(chosen.accounts) or chosen.partner is not None
    if not by_log and one.begins and one.ends and not _between(one.begins, one.ends, chosen):
        return False
    if chosen.departments:
        answer = one.departments
        if answer is None:
            answer = {units.get(key) for key in one.keys}
        return bool(answer & set(chosen.departments))
    return True


def _between(begins: datetime, ends: datetime, chosen: Selection) -> bool:
    """Whether any moment from the first to the last is in the window."""
    return not (chosen.since and ends < chosen.since) and not (
        chosen.until and begins >= chosen.until
    )


def _records(rows: Rows, rule: ScopeRule) -> dict[str, list[_Record]]:
    found: dict[str, list[_Record]] = {one.collection: [] for one in rule.records}
    for key, mail, born, _unit, secret, extra, joined in rows.person:
        blood = bool(extra.obj.get("blood")) if extra else False
        values = {
            "user.unique_id": True, "user.contact.email": mail, "user.account": joined,
            "user.demographic.date_of_birth": born, "user.health_and_medical.record": secret,
            "user.biometric.blood": blood,
        }  # fmt: skip
        found["person"].append(_Record([key], joined, joined, None, set(), _of(values), joined))
    for key, no, writer, reader, made, unit, words, code in rows.doc:
        at = made.replace(tzinfo=ZONE) if made else None
        values = {
            "user.unique_id": no or writer is not None, "user.content.private": words,
            "user.health_and_medical": code,
        }  # fmt: skip
        keys = [one for one in (writer, reader) if one is not None]
        names = {str(key), *((no,) if no is not None else ())}
        found["doc"].append(_Record(keys, at, at, {unit}, names, _of(values), at))
    for _key, person, words in rows.tag:
        keys = [] if person is None else [person]
        values = {"user.name": words}
        found["tag"].append(_Record(keys, None, None, None, set(), _of(values), None))
    for _key, person, day, words in rows.memo if "memo" in found else ():
        keys = [] if person is None else [person]
        values = {"user.unique_id": person is not None, "user.contact.email": words}
        begins = ends = None
        if day:
            begins = datetime(day.year, day.month, day.day, tzinfo=ZONE)
            ends = begins + timedelta(days=1, microseconds=-1)
        found["memo"].append(_Record(keys, begins, ends, None, set(), _of(values), begins))
    return found


def _of(values: dict[str, Any]) -> set[str]:
    return {name for name, value in values.items() if value}


def day(text: str) -> date:
    """A day."""
    return date.fromisoformat(text)
