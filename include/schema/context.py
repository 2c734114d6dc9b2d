"""What surrounds a column: is its table about people, and through which columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from include.schema.live import LiveColumn, LiveForeignKey, LiveSchema, LiveTable, Name
from include.schema.naming import (
    Subject,
    category_of,
    is_line,
    person_word,
    phrase,
    subject_of,
    words,
)
from include.schema.patterns import Counts, TableCounts
from include.schema.vocabulary import ACTORS, KEY_WORDS, ROLE

_ACTOR = re.compile(ACTORS)
_HAN_KEY = re.compile(
    r"(?:(客户|用户|会员|患者|病人|学生|人员|读者|居民)|员工|职工|医生|医师|护士|教师|司机)(?:编号|工号|号|id|ID|代码|标识)"
)
_GENERIC = {"id", "code", "name", "key", "uuid", "number", "no", "dm", "bh"}
_PINYIN_KEY = re.compile(r"(hz|br|kh|yg|ys|hy|xs|ry|yh|cz|jbr)(id|bh|dm|gh)|gh|gonghao")
# Two of these in one row name a person, whatever the table is called.
_DIRECT = (
    "user.name", "user.government_id", "user.demographic.date_of_birth", "user.contact.email",
    "user.contact.phone_number", "user.demographic.gender",
)  # fmt: skip
_TITLE = re.compile(r"[\u3400-\u9fff]{2,12}")  # longer comments are sentences
REACH = 2  # keys that are followed from a table to the person it is about
_PARTNER = "partner"  # of trade: an ERP's customers, or the companies that work for it
_TENANT = "tenant"  # a person who rents, or a company among those that share a database
_OWN_NAMES = {"name", "display name", "full name"}
_NOT_HOLDERS = {Subject.ORGANIZATION, Subject.THING}


@dataclass(frozen=True)
class Context:
    """A table as the guesser sees it.

    Attributes:
        table: of the live schema.
        subject: what its name says.
        counts: of its values.
        people: columns that lead to a person's record, with the kind of person.
        targets: columns of foreign keys, with the table that each leads to.
        holds: at least two columns name a person directly.
        is_purchase_line: whether its rows are the lines of a person's purchase.
        follows: a key leads to a table that is personal itself: a card to its holder's account.
    """

    table: LiveTable
    subject: Subject
    counts: TableCounts
    people: Mapping[str, Subject] = field(default_factory=dict)
    targets: Mapping[str, Name] = field(default_factory=dict)
    holds: bool = False
    is_purchase_line: bool = False
    follows: bool = False

    @property
    def linked(self) -> bool:
        """Whether its rows belong to a person, by a key that is not just who typed them in."""
        if self.subject in _NOT_HOLDERS:
            return False
        return self.follows or any(not is_actor(name) for name in self.people)

    @property
    def linked_to_customer(self) -> bool:
        """Whether its rows belong to a person who is not staff."""
        return self.linked and Subject.CUSTOMER in {
            kind for name, kind in self.people.items() if not is_actor(name)
        }

    @property
    def personal(self) -> bool:
        """Whether a phone, an address or a name in it is a person's."""
        return self.subject.is_person or self.holds or self.linked

    def values(self, column: str) -> Counts:
        """What was counted of a column."""
        return self.counts.columns.get(column, Counts())


def contexts(live: LiveSchema, counts: Mapping[Name, TableCounts]) -> dict[Name, Context]:
    """Look at each table with its keys and its neighbours."""
    subjects = _subjects(live, counts)
    keys = _keys_by_name(live)
    found = {
        name: _context(table, subjects, keys, counts.get(name, TableCounts()))
        for name, table in live.tables.items()
    }
    for _step in range(REACH):
        found = {name: _at_second_hand(one, found) for name, one in found.items()}
    return {name: _with_lines(one, found) for name, one in found.items()}


def _subject(table: LiveTable) -> Subject:
    """What the table's comment says where that is a title in Chinese, else what its name says.

    Initials of pinyin are ambiguous (dz: reader or address), a title is not.
    """
    comment = (table.comment or "").strip().removesuffix("表")
    titled = subject_of(comment) if _TITLE.fullmatch(comment) else Subject.UNKNOWN
    return subject_of(table.name) if titled is Subject.UNKNOWN else titled


def _subjects(live: LiveSchema, counts: Mapping[Name, TableCounts]) -> dict[Name, Subject]:
    """Return the subject of each table: by its name, unless values or relations contradict it."""
    subjects = {name: _subject(table) for name, table in live.tables.items()}
    for name, table in live.tables.items():
        if subjects[name] is Subject.ORGANIZATION and (
            _names_people(table, counts.get(name, TableCounts()))
            or (words(table.name)[-1:] == (_PARTNER,) and _buys(name, live, subjects))
        ):
            subjects[name] = Subject.CUSTOMER
        if words(table.name)[-1:] == (_TENANT,) and _divides_tables(name, live):
            subjects[name] = Subject.ORGANIZATION
    for name, table in live.tables.items():
        # the bank account of a person, not a bank: res_partner_bank
        holders = {subjects.get(key.target) for key in table.foreign_keys if not _by_actor(key)}
        if words(table.name)[-1:] == ("bank",) and Subject.CUSTOMER in holders:
            subjects[name] = Subject.ACCOUNT
    return subjects


def _names_people(table: LiveTable, counts: TableCounts) -> bool:
    """Return whether the values of the table's own name are names of people."""
    return any(
        phrase(column) in _OWN_NAMES and by_value(values) == "user.name"
        for column, values in counts.columns.items()
    )


def _buys(name: Name, live: LiveSchema, subjects: Mapping[Name, Subject]) -> bool:
    """Return whether orders or parcels refer to the table."""
    return any(
        key.target == name
        for other, table in live.tables.items()
        if subjects[other] in (Subject.PURCHASE, Subject.SHIPMENT)
        for key in table.foreign_keys
        if not _by_actor(key)
    )


def _divides_tables(name: Name, live: LiveSchema) -> bool:
    """Return whether several tables have a key to this table in their primary keys."""
    divided = [
        table
        for table in live.tables.values()
        for key in table.foreign_keys
        if key.target == name and {*key.columns} < {*table.primary_key}
    ]
    return len(divided) > 1


def _by_actor(key: LiveForeignKey) -> bool:
    return all(is_actor(column) for column in key.columns)


def _keys_by_name(live: LiveSchema) -> dict[str, Name]:
    """Primary keys of one column whose name is used by one table only: ``branchId``."""
    found: dict[str, list[Name]] = {}
    for name, table in live.tables.items():
        if len(table.primary_key) == 1 and table.primary_key[0].lower() not in _GENERIC:
            found.setdefault(table.primary_key[0], []).append(name)
    return {column: names[0] for column, names in found.items() if len(names) == 1}


def is_actor(column: str) -> bool:
    """Whether a column says who did something to the row."""
    return bool(_ACTOR.fullmatch(phrase(column)))


def named_key(column: LiveColumn) -> Subject | None:
    """The kind of person that a key leads to by its name, without a foreign key: ``patientId``."""
    said = words(column.name)
    if han := _HAN_KEY.fullmatch(column.name):
        return Subject.CUSTOMER if han[1] else Subject.EMPLOYEE
    if _PINYIN_KEY.fullmatch("".join(said)):
        return Subject.EMPLOYEE if said[0][:2] in ("yg", "ys", "gh", "jb") else Subject.CUSTOMER
    if len(said) > 1 and said[-1] in KEY_WORDS:
        return person_word(said[-2:-1])
    return None


def _context(
    table: LiveTable,
    subjects: Mapping[Name, Subject],
    keys: Mapping[str, Name],
    counts: TableCounts,
) -> Context:
    subject = subjects[table.schema, table.name]
    people: dict[str, Subject] = {}
    targets: dict[str, Name] = {}
    for key in table.foreign_keys:
        kind = subjects.get(key.target, subject_of(key.target[1]))
        targets |= dict.fromkeys(key.columns, key.target)
        people |= dict.fromkeys(key.columns, kind) if kind.is_person else {}
    for column in table.columns.values():
        if column.name in targets:
            continue
        far = keys.get(column.name)
        if far is not None and far != (table.schema, table.name):
            targets[column.name] = far
        by_name = subjects[far] if far is not None and subjects[far].is_person else None
        by_name = by_name or (named_key(column) if column.name not in targets else None)
        if by_name is not None and (column.name,) != table.primary_key:
            people[column.name] = by_name
    context = Context(table, subject, counts, people, targets)
    return replace(context, holds=_holds(context))


def _holds(context: Context) -> bool:
    if context.subject in _NOT_HOLDERS:
        return False
    direct = set()
    for column in context.table.columns.values():
        category = category_of(column.name) or ""
        kind = next((one for one in _DIRECT if category.startswith(one)), None)
        kind = kind or by_value(context.values(column.name))
        if kind and ROLE.match(phrase(column.name)) and kind in category:
            direct.add("role")  # sender_phone alone says whose it is
        if (
            kind
            and column.base not in ("bool", "timestamptz")
            and column.name not in context.targets
        ):
            direct.add(kind)
    return len(direct) > 1


def by_value(counts: Counts) -> str | None:
    """The category that values alone show, None when they show none clearly."""
    if counts.filled < 3:
        return None
    if counts.share("resident_id") >= 0.5:
        return "user.government_id.national_identification_number"
    if counts.share("email") >= 0.7:
        return "user.contact.email"
    if counts.share("mobile") >= 0.7:
        return "user.contact.phone_number"
    if counts.share("ssn") >= 0.7:
        return "user.government_id.national_identification_number"
    if counts.filled >= 10 and counts.share("card") >= 0.9:
        return "user.financial.credit_card"
    if counts.share("iban") >= 0.7:
        return "user.financial.bank_account"
    if counts.distinct >= 5 and counts.share("ip") >= 0.9:
        return "user.device.ip_address"
    if counts.distinct >= 5 and counts.share("chinese_name") >= 0.7:
        return "user.name"
    if counts.distinct >= 5 and min(counts.share("given_name"), counts.share("latin_name")) >= 0.4:
        return "user.name"
    if counts.distinct >= 5 and counts.share("phone") >= 0.8:
        return "user.contact.phone_number"
    if counts.distinct >= 5 and counts.share("address") >= 0.6:
        return "user.contact.address.street"
    return None


def _at_second_hand(context: Context, found: Mapping[Name, Context]) -> Context:
    """Mark a table whose rows belong to a row that belongs to a person."""
    near = (found.get(target) for name, target in context.targets.items() if not is_actor(name))
    if context.follows or not any(one is not None and one.personal for one in near):
        return context
    return replace(context, follows=True)


def _with_lines(context: Context, found: Mapping[Name, Context]) -> Context:
    """Mark the lines of a person's purchase: they say what the person bought."""
    own = words(context.table.name)
    for target in context.targets.values():
        parent = found.get(target)
        if parent is None or parent.subject is not Subject.PURCHASE or not parent.personal:
            continue
        if context.subject is Subject.ADDRESS:
            return context
        if is_line(context.table.name) or own[: len(words(target[1]))] == words(target[1]):
            return replace(context, is_purchase_line=True)
    return context
