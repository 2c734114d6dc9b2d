"""Find out whether a table is about people, and which of its columns refer to people."""

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
# Two of these categories in a row identify a person, independent of the table's name.
_DIRECT = (
    "user.name", "user.government_id", "user.demographic.date_of_birth", "user.contact.email",
    "user.contact.phone_number", "user.demographic.gender",
)  # fmt: skip
_TITLE = re.compile(r"[\u3400-\u9fff]{2,12}")  # longer comments are sentences
REACH = 2  # number of foreign keys followed from a table to its person
_PARTNER = "partner"  # in an ERP, a partner is a customer or a company that works for the owner
# A tenant is a person who rents, or one of several companies that share a database.
_TENANT = "tenant"
_OWN_NAMES = {"name", "display name", "full name"}
_NOT_HOLDERS = {Subject.ORGANIZATION, Subject.THING}


@dataclass(frozen=True)
class Context:
    """A table of a live schema, with facts that show whether its rows describe or belong to people.

    These facts are used to guess the data categories of the table's columns.

    Attributes:
        table: table of the live schema.
        subject: kind of content that the table's name indicates.
        counts: for each column, the number of values that match each pattern. A pattern describes
            the form of personal data, such as a phone number.
        people: column that refers to the record of a person -> kind of person.
        targets: column that refers to another table -> that table.
        identifies_people: whether at least two columns identify a person directly.
        is_purchase_line: whether each row is one of the items that a person bought, such as a line
            of an order.
        belongs_to_person: whether a column refers to a table for which `is_personal` is true, such
            as a table of accounts.
    """

    table: LiveTable
    subject: Subject
    counts: TableCounts
    people: Mapping[str, Subject] = field(default_factory=dict)
    targets: Mapping[str, Name] = field(default_factory=dict)
    identifies_people: bool = False
    is_purchase_line: bool = False
    belongs_to_person: bool = False

    @property
    def is_linked(self) -> bool:
        """Return whether a column shows that each row of the table belongs to a person.

        The column refers to the person, or to a row of another table that belongs to a person, such
        as an account. A column that refers to a person who worked on the row, such as
        ``created_by``, does not count.
        """
        if self.subject in _NOT_HOLDERS:
            return False
        return self.belongs_to_person or any(not is_actor(name) for name in self.people)

    @property
    def is_linked_to_customer(self) -> bool:
        """Return whether the rows of the table belong to customers and not to staff."""
        return self.is_linked and Subject.CUSTOMER in {
            kind for name, kind in self.people.items() if not is_actor(name)
        }

    @property
    def is_personal(self) -> bool:
        """Return whether phone numbers, addresses and names in the table are those of people."""
        return self.subject.is_person or self.identifies_people or self.is_linked

    def values(self, column: str) -> Counts:
        """Return, for each pattern, how many values of a column match it.

        All counts are 0 if the column was not read.
        """
        return self.counts.columns.get(column, Counts())


def contexts(live: LiveSchema, counts: Mapping[Name, TableCounts]) -> dict[Name, Context]:
    """Return the context of each table of a live schema.

    Args:
        live: result of ``read_schema``.
        counts: table -> result of ``count_patterns``; a table that was not read is missing.

    Returns:
        Table -> its context.
    """
    subjects = _subjects(live, counts)
    keys = _keys_by_name(live)
    contexts_by_name = {
        name: _context(table, subjects, keys, counts.get(name, TableCounts()))
        for name, table in live.tables.items()
    }
    for _step in range(REACH):
        contexts_by_name = {
            name: _follow_keys(context, contexts_by_name)
            for name, context in contexts_by_name.items()
        }
    return {
        name: _mark_purchase_lines(context, contexts_by_name)
        for name, context in contexts_by_name.items()
    }


def _subject(table: LiveTable) -> Subject:
    """Return the kind of content that a table's comment or name indicates.

    The comment is used only if it is a Chinese title, because such a title is not ambiguous. Pinyin
    initials in a name are ambiguous: dz can mean reader or address.
    """
    comment = (table.comment or "").strip().removesuffix("表")
    titled = subject_of(comment) if _TITLE.fullmatch(comment) else Subject.UNKNOWN
    return subject_of(table.name) if titled is Subject.UNKNOWN else titled


def _subjects(live: LiveSchema, counts: Mapping[Name, TableCounts]) -> dict[Name, Subject]:
    """Return the kind of content of each table.

    The table's comment or name decides, with few exceptions. Names such as ``partner``, ``tenant``
    and ``bank`` can mean people or organizations. For these names, values and foreign keys decide.
    """
    subjects = {name: _subject(table) for name, table in live.tables.items()}
    for name, table in live.tables.items():
        if subjects[name] is Subject.ORGANIZATION and (
            _names_people(table, counts.get(name, TableCounts()))
            or (words(table.name)[-1:] == (_PARTNER,) and _has_orders(name, live, subjects))
        ):
            subjects[name] = Subject.CUSTOMER
        if words(table.name)[-1:] == (_TENANT,) and _is_tenant_of_tables(name, live):
            subjects[name] = Subject.ORGANIZATION
    for name, table in live.tables.items():
        # the bank account of a person, not a bank: res_partner_bank
        holders = {subjects.get(key.target) for key in table.foreign_keys if not _is_actor_key(key)}
        if words(table.name)[-1:] == ("bank",) and Subject.CUSTOMER in holders:
            subjects[name] = Subject.ACCOUNT
    return subjects


def _names_people(table: LiveTable, counts: TableCounts) -> bool:
    """Return whether the table has a column such as ``name`` whose values are names of people."""
    return any(
        phrase(column) in _OWN_NAMES and category_by_values(values) == "user.name"
        for column, values in counts.columns.items()
    )


def _has_orders(name: Name, live: LiveSchema, subjects: Mapping[Name, Subject]) -> bool:
    """Return whether a table of orders or parcels has a foreign key to the table `name`.

    Args:
        name: schema and name of the table to which the foreign key refers.
        live: all tables of the database.
        subjects: kind of content of each table.
    """
    return any(
        key.target == name
        for other, table in live.tables.items()
        if subjects[other] in (Subject.PURCHASE, Subject.SHIPMENT)
        for key in table.foreign_keys
        if not _is_actor_key(key)
    )


def _is_tenant_of_tables(name: Name, live: LiveSchema) -> bool:
    """Return whether each row of a table is a tenant that owns rows of other tables.

    This is the case if, in several other tables, a foreign key to this table is a part of the
    primary key.

    Args:
        name: schema and name of the table.
        live: all tables of the database.
    """
    divided = [
        table
        for table in live.tables.values()
        for key in table.foreign_keys
        if key.target == name and {*key.columns} < {*table.primary_key}
    ]
    return len(divided) > 1


def _is_actor_key(key: LiveForeignKey) -> bool:
    return all(is_actor(column) for column in key.columns)


def _keys_by_name(live: LiveSchema) -> dict[str, Name]:
    """Return the table to which a column with a name such as ``branchId`` refers.

    The column needs no foreign key: it refers to the table whose primary key has the same name.

    Returns:
        Name of a primary key column -> its table. Primary keys with several columns, and names that
        are the primary key of several tables, are left out.
    """
    tables_by_column: dict[str, list[Name]] = {}
    for name, table in live.tables.items():
        if len(table.primary_key) == 1 and table.primary_key[0].lower() not in _GENERIC:
            tables_by_column.setdefault(table.primary_key[0], []).append(name)
    return {column: names[0] for column, names in tables_by_column.items() if len(names) == 1}


def is_actor(column: str) -> bool:
    """Judge by a column's name whether its values name the person who worked on the row.

    An example is ``approved_by``.
    """
    return bool(_ACTOR.fullmatch(phrase(column)))


def person_kind_by_key_name(column: LiveColumn) -> Subject | None:
    """Judge by a column's name, such as ``patientId``, which kind of person it refers to.

    Return None if the name does not refer to a person.
    """
    name_words = words(column.name)
    if han := _HAN_KEY.fullmatch(column.name):
        return Subject.CUSTOMER if han[1] else Subject.EMPLOYEE
    if _PINYIN_KEY.fullmatch("".join(name_words)):
        return (
            Subject.EMPLOYEE if name_words[0][:2] in ("yg", "ys", "gh", "jb") else Subject.CUSTOMER
        )
    if len(name_words) > 1 and name_words[-1] in KEY_WORDS:
        return person_word(name_words[-2:-1])
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
        by_name = by_name or (
            person_kind_by_key_name(column) if column.name not in targets else None
        )
        if by_name is not None and (column.name,) != table.primary_key:
            people[column.name] = by_name
    context = Context(table, subject, counts, people, targets)
    return replace(context, identifies_people=_identifies_people(context))


def _identifies_people(context: Context) -> bool:
    if context.subject in _NOT_HOLDERS:
        return False
    direct = set()
    for column in context.table.columns.values():
        category = category_of(column.name) or ""
        kind = next(
            (
                direct_category
                for direct_category in _DIRECT
                if category.startswith(direct_category)
            ),
            None,
        )
        kind = kind or category_by_values(context.values(column.name))
        if kind and ROLE.match(phrase(column.name)) and kind in category:
            direct.add("role")  # a role such as sender_phone already identifies a person
        if (
            kind
            and column.base not in ("bool", "timestamptz")
            and column.name not in context.targets
        ):
            direct.add(kind)
    return len(direct) > 1


def category_by_values(counts: Counts) -> str | None:
    """Return the data category that the values of a column indicate, regardless of its name.

    Return None if the values indicate no data category.
    """
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


def _follow_keys(context: Context, contexts_by_name: Mapping[Name, Context]) -> Context:
    """Return the context; set `belongs_to_person` if a column refers to a table about people.

    A table is about people if `is_personal` is true for it.

    Args:
        context: context of the table.
        contexts_by_name: contexts of all tables, by schema and name.
    """
    near = (
        contexts_by_name.get(target)
        for name, target in context.targets.items()
        if not is_actor(name)
    )
    if context.belongs_to_person or not any(
        target_context is not None and target_context.is_personal for target_context in near
    ):
        return context
    return replace(context, belongs_to_person=True)


def _mark_purchase_lines(context: Context, contexts_by_name: Mapping[Name, Context]) -> Context:
    """Return the context; set `is_purchase_line` if each row is an item that a person bought.

    The columns of such a table are guessed to be personal, because they show what the person
    bought.
    """
    own = words(context.table.name)
    for target in context.targets.values():
        parent = contexts_by_name.get(target)
        if parent is None or parent.subject is not Subject.PURCHASE or not parent.is_personal:
            continue
        if context.subject is Subject.ADDRESS:
            return context
        if is_line(context.table.name) or own[: len(words(target[1]))] == words(target[1]):
            return replace(context, is_purchase_line=True)
    return context
