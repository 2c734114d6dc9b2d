"""Draft a policy pack from a live database: a data map, default expectations, one purpose.

A draft is for a person to correct: each guess has its confidence and its reason as a comment, so
that the files stay pure fideslang and pure pack. Every guessed category is listed as unconfirmed
under ``meta.parcelseal`` until a person deletes it there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from include.schema.context import Context, contexts
from include.schema.draft_rules import Lines, flow_list, flow_map, purposes, quality, scalar
from include.schema.guesses import Guess
from include.schema.live import LiveColumn, LiveSchema, LiveTable, Name, fides_type
from include.schema.naming import Subject, words
from include.schema.patterns import LOCK_TIMEOUT, NO_RIGHT, TIMEOUT, TableCounts

NOTHING_TO_READ = "55000"
_REASONS = {
    NO_RIGHT: (
        "its user has no right to read it",
        "GRANT pg_read_all_data TO the user and draft again",
    ),
    "57014": (
        f"reading it took longer than {TIMEOUT:.0f} s",
        "draft again at a time of less load",
    ),
    "55P03": (
        f"another session held its lock for {LOCK_TIMEOUT.removesuffix('s')} s",
        "draft again",
    ),
    NOTHING_TO_READ: (
        "it has nothing to read: a materialized view that was never refreshed, or a foreign table",
        "refresh the view and draft again",
    ),
    "08": (
        "the server of this foreign table does not answer",
        "draft again when it does, or map the database on that server instead",
    ),
    "HV": (
        "the server of this foreign table refused to answer",
        "check its foreign server and user mapping, and draft again",
    ),
    "53": ("the server lacks memory, disk or connections", "draft again at a time of less load"),
}


def explained(code: str) -> tuple[str, str]:
    """Return the reason for values that could not be read, and the action.

    Args:
        code: SQLSTATE.
    """
    explanation = _REASONS.get(code) or _REASONS.get(code[:2])
    if explanation is None:
        return f"PostgreSQL ended the statement with SQLSTATE {code}", "see the log of the server"
    reason, action = explanation
    return f"{reason} (SQLSTATE {code})", action


def reason_of(code: str) -> str:
    """Return the reason for values that could not be read, and the action, in one sentence.

    Args:
        code: SQLSTATE.
    """
    return ": ".join(explained(code))


def first_refusal(counts: Mapping[str, TableCounts]) -> tuple[str, str] | None:
    """Return a table that could not be read and the SQLSTATE, if no table could be read.

    Args:
        counts: by label of the table.
    """
    if any(table.columns for table in counts.values()):
        return None
    refused = ((label, table.refused) for label, table in counts.items())
    return next((pair for pair in refused if pair[1] not in {"", NOTHING_TO_READ}), None)


def notes(table: LiveTable, counts: TableCounts) -> Iterator[str]:
    """Yield notes on the number of rows that were read of a table, and on unread values."""
    if counts.refused and not counts.columns:
        yield f"Guessed by names alone, as no value was read: {reason_of(counts.refused)}."
        return
    if counts.columns:
        yield f"Values: {_rows(table, counts)}."
    if counts.refused:
        yield f"Other columns are guessed by their names: {reason_of(counts.refused)}."
    by_code: dict[str, list[str]] = {}
    for column, code in counts.unread.items():
        by_code.setdefault(code, []).append(column)
    for code, columns in by_code.items():
        yield f"Not read: {', '.join(columns)}: {reason_of(code)}."


def _rows(table: LiveTable, counts: TableCounts) -> str:
    if counts.is_sampled:
        return f"{counts.rows:,} of about {table.rows:,} rows, from all over the table"
    if counts.rows < counts.most:
        return "all rows (there are none)" if not counts.rows else f"all {counts.rows:,} rows"
    estimate = f"about {table.rows:,}" if table.rows else "an unknown number of"
    return f"the first {counts.rows:,} of {estimate} rows"


_SUBJECTS = {
    "patient": "patient",
    "passenger": "passenger",
    "visitor": "visitor",
    "guest": "visitor",
    "applicant": "job_applicant",
    "candidate": "job_applicant",
    "prospect": "prospect",
    "lead": "prospect",
    "kin": "next_of_kin",
    "student": "trainee",
    "pupil": "trainee",
    "citizen": "citizen_voter",
    "resident": "citizen_voter",
    "voter": "citizen_voter",
}
"""fideslang's data subjects by words of table names; others are customers."""


@dataclass(frozen=True)
class Draft:
    """A drafted pack.

    Attributes:
        name: fides_key of the data map.
        files: path inside the pack -> text.
        tables: how many tables it maps.
        guesses: guesses about personal columns.
        refused: SQLSTATE by table, for tables whose reading ended with an error.
        unread: SQLSTATE by table and column, for single columns that could not be read.
        rows: number of rows that were read, by table.
    """

    name: str
    files: Mapping[str, str]
    tables: int
    guesses: Sequence[Guess]
    refused: Mapping[str, str]
    unread: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, int]

    @property
    def data_map(self) -> str:
        """The data map's text."""
        return self.files[f"datamap/{self.name}.yaml"]

    @property
    def by_category(self) -> dict[str, int]:
        """Personal columns by category, the most frequent first."""
        found = Counter(one.category for one in self.guesses if not one.key)
        return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))

    def unsure(self) -> list[Guess]:
        """Guesses of low confidence."""
        return [one for one in self.guesses if one.confidence == "low"]


def draft_pack(
    live: LiveSchema,
    counts: Mapping[Name, TableCounts],
    guesses: Sequence[Guess],
    *,
    name: str,
) -> Draft:
    """Write a policy pack for a live database.

    Views are left out, as they show what tables hold; so are tables without columns.

    Args:
        live: of ``read_schema``.
        counts: of ``count_patterns``, by table.
        guesses: of ``guess``.
        name: fides_key of the data map.
    """
    tables = {
        key: table for key, table in live.tables.items() if table.kind != "view" and table.columns
    }
    shown = [one for one in guesses if (one.schema, one.table) in tables]
    names = _Names(tables)
    files = {
        f"datamap/{name}.yaml": _DataMap(name, names, live, counts, shown).text(),
        f"quality/{name}.yaml": quality(name, tables, names.collections, counts, shown),
        "purposes.yaml": purposes(name, names.collections, shown),
    }
    counted = {tables[key].label: one for key, one in counts.items() if key in tables}
    return Draft(
        name=name,
        files=files,
        tables=len(tables),
        guesses=shown,
        refused={label: one.refused for label, one in counted.items() if one.refused},
        unread={label: one.unread for label, one in counted.items() if one.unread},
        rows={label: one.rows for label, one in counted.items() if one.columns},
    )


class _Names:
    """Names of collections: a table's own in the main schema, with its schema elsewhere."""

    def __init__(self, tables: Mapping[Name, LiveTable]) -> None:
        self.tables = tables
        schemas = Counter(schema for schema, _table in tables)
        self.schema = "public" if "public" in schemas or not schemas else max(
            sorted(schemas), key=lambda one: schemas[one]
        )  # fmt: skip
        self.collections: dict[Name, str] = {}
        for key in tables:
            self.collections[key] = self._free(self._name(key))

    def _name(self, key: Name) -> str:
        schema, table = key
        return table if schema == self.schema else f"{schema}.{table}"

    def _free(self, name: str) -> str:
        while name in self.collections.values():
            name += "_"
        return name

    def said_apart(self) -> Iterator[tuple[str, Name]]:
        """Collections whose table the loader would not read from their name."""
        for (schema, table), name in self.collections.items():
            head, dot, tail = name.partition(".")
            read = (head, tail) if head and dot and tail else (self.schema, name)
            if read != (schema, table):
                yield name, (schema, table)


class _DataMap:
    """The data map, line by line."""

    def __init__(
        self,
        name: str,
        names: _Names,
        live: LiveSchema,
        counts: Mapping[Name, TableCounts],
        guesses: Sequence[Guess],
    ) -> None:
        self.name, self.names = name, names
        self.contexts, self.counts = contexts(live, counts), counts
        self.guesses: dict[tuple[str, str, str], list[Guess]] = {}
        for one in guesses:
            self.guesses.setdefault((one.schema, one.table, one.column), []).append(one)
        self.lines = Lines()

    def text(self) -> str:
        self.lines.note(
            0,
            "A draft by ./parcelseal config map, from names, keys and counts of values.",
            "Correct it: behind each category stand how sure the guess is and why. A column",
            "without one was not taken for personal data. docs/data-map.md has the next steps.",
        )
        self.lines.add(0, "dataset:")
        self.lines.add(1, f"- fides_key: {scalar(self.name)}")
        self.lines.add(2, f"name: {scalar(self.name)}")
        self._meta()
        self.lines.add(2, "collections:" if self.names.tables else "collections: []")
        for key, table in self.names.tables.items():
            self._collection(key, table)
        return str(self.lines)

    def _meta(self) -> None:
        self.lines.add(2, "meta:")
        self.lines.add(3, "parcelseal:")
        self.lines.add(4, "connection: customer_db")
        self.lines.add(4, f"schema: {scalar(self.names.schema)}")
        self.lines.note(
            4,
            "To decide: site (where the primary stands), owner, department, class, rto_minutes,",
            "rpo_hours, and newest: a column that shows how fresh a restored copy is.",
        )
        apart = list(self.names.said_apart())
        if apart:
            self.lines.add(4, "collections:")
        for name, (schema, table) in apart:
            said = flow_map([("schema", scalar(schema)), ("table", scalar(table))])
            self.lines.add(5, f"{scalar(name)}: {said}")
        self._unconfirmed()

    def _unconfirmed(self) -> None:
        """List the fields whose categories are guesses."""
        fields: dict[Name, dict[str, None]] = {}
        for (schema, table, column), guesses in self.guesses.items():
            paths = (f"{column}.{one.key}" if one.key else column for one in guesses)
            fields.setdefault((schema, table), {}).update(dict.fromkeys(paths))
        if not fields:
            return
        self.lines.note(
            4,
            "Guessed categories. Delete a field here when a person has checked its categories",
            "below: incident.yaml, whose notices name categories, takes no unconfirmed field.",
        )
        self.lines.add(4, "unconfirmed:")
        for key, listed in fields.items():
            self.lines.add(5, f"{scalar(self.names.collections[key])}: {flow_list(listed)}")

    def _collection(self, key: Name, table: LiveTable) -> None:
        context = self.contexts[key]
        self.lines.add(3, f"- name: {scalar(self.names.collections[key])}")
        if table.kind in ("materialized_view", "foreign_table"):
            self.lines.note(4, f"a {table.kind.replace('_', ' ')}")
        if key in self.counts:
            self.lines.note(4, *notes(table, self.counts[key]))
        if any((*key, column) in self.guesses for column in table.columns):
            self.lines.add(4, f"data_subjects: {flow_list([_subject(context)])}")
        self.lines.add(4, "fields:")
        for column in table.columns.values():
            self._field(key, table, column)

    def _field(self, key: Name, table: LiveTable, column: LiveColumn) -> None:
        guessed = self.guesses.get((*key, column.name), [])
        self.lines.add(5, f"- name: {scalar(column.name)}")
        for one in guessed:
            if not one.key:
                why = f"{one.confidence}: {one.reason}"
                self.lines.add(6, f"data_categories: {flow_list([one.category])}", why)
                if one.subject and one.subject != _subject(self.contexts[key]):
                    self.lines.add(6, f"data_subjects: {flow_list([one.subject])}")
        inside = [one for one in guessed if one.key]
        # fideslang lets only objects have fields inside
        kind = "object" if inside else fides_type(column)
        meta = [("data_type", scalar(kind))]
        if column.name in table.primary_key:
            meta.append(("primary_key", "true"))
        references = self._references(table, column)
        if references:
            meta.append(("references", f"[{', '.join(references)}]"))
        self.lines.add(6, f"fides_meta: {flow_map(meta)}")
        if inside:
            self.lines.add(6, "fields:")
        for one in inside:
            self.lines.add(7, f"- name: {scalar(one.key)}")
            why = f"{one.confidence}: {one.reason}"
            self.lines.add(8, f"data_categories: {flow_list([one.category])}", why)
        if inside:  # the next check reports each key that the map lacks, once it names some
            self._other_keys(key, column, {guess.key for guess in inside})

    def _other_keys(self, key: Name, column: LiveColumn, guessed: Collection[str]) -> None:
        """List the keys of a JSON column that were read and are not guessed to be personal."""
        for name in self.counts[key].keys.get(column.name, {}):
            if name not in guessed:
                self.lines.add(7, f"- name: {scalar(name)}")

    def _references(self, table: LiveTable, column: LiveColumn) -> list[str]:
        found: dict[str, None] = {}
        for foreign in table.foreign_keys:
            for mine, theirs in zip(foreign.columns, foreign.targets, strict=True):
                target = self.names.collections.get(foreign.target)
                if mine == column.name and target is not None:
                    said = flow_map([
                        ("dataset", scalar(self.name)),
                        ("field", scalar(f"{target}.{theirs}")),
                        ("direction", "to"),
                    ])  # fmt: skip
                    found.setdefault(said)
        return list(found)


def _subject(context: Context) -> str:
    if context.subject is Subject.EMPLOYEE:
        return "employee"
    if not context.subject.is_person and context.people and not context.linked_to_customer:
        kinds = set(context.people.values())
        return "employee" if kinds == {Subject.EMPLOYEE} else "customer"
    said = (*words(context.table.name), *(w for one in context.people for w in words(one)))
    singular = [one.removesuffix("s") for one in said]
    return next((_SUBJECTS[one] for one in singular if one in _SUBJECTS), "customer")
