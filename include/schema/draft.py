"""Draft a policy pack from a live database: a data map, default expectations, and one purpose.

A person must correct the draft. The files explain each guess in a comment, with the confidence and
the reason, because the formats of fideslang and of the policy pack have no keys for such
explanations. Each guessed data category is listed as unconfirmed under ``meta.parcelseal`` until a
person deletes it there.
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
        f"another session locked it for {LOCK_TIMEOUT.removesuffix('s')} s",
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
    """Return why PostgreSQL could not read values, and the action that solves the problem.

    Args:
        code: SQLSTATE of the error.
    """
    explanation = _REASONS.get(code) or _REASONS.get(code[:2])
    if explanation is None:
        return f"PostgreSQL ended the statement with SQLSTATE {code}", "see the log of the server"
    reason, action = explanation
    return f"{reason} (SQLSTATE {code})", action


def reason_of(code: str) -> str:
    """Return a text that states why PostgreSQL could not read values, and the corrective action.

    Args:
        code: SQLSTATE of the error.
    """
    return ": ".join(explained(code))


def first_refusal(counts: Mapping[str, TableCounts]) -> tuple[str, str] | None:
    """Return why no table could be read, or None if at least one table was read.

    Args:
        counts: schema and name of a table, separated by a dot -> counts of the table.

    Returns:
        For the first table with an error, its schema and name, and the SQLSTATE of the error.
    """
    if any(table.columns for table in counts.values()):
        return None
    refused = ((label, table.refused) for label, table in counts.items())
    return next((pair for pair in refused if pair[1] not in {"", NOTHING_TO_READ}), None)


def notes(table: LiveTable, counts: TableCounts) -> Iterator[str]:
    """Yield notes on how many rows of a table were read, and why some values were not read."""
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
        return "all rows (the table is empty)" if not counts.rows else f"all {counts.rows:,} rows"
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
"""fideslang's data subjects by words of table names. Other tables are about customers."""


@dataclass(frozen=True)
class Draft:
    """A drafted policy pack.

    Attributes:
        name: fides_key of the data map.
        files: path inside the policy pack -> text of the file.
        tables: number of mapped tables.
        guesses: guesses about personal columns.
        refused: table -> SQLSTATE of the error after which no further columns of the table were
            read.
        unread: table -> column that could not be read -> SQLSTATE of the error.
        rows: table -> number of rows that were read.
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
        """Return the text of the data map."""
        return self.files[f"datamap/{self.name}.yaml"]

    @property
    def by_category(self) -> dict[str, int]:
        """Return the number of personal columns of each data category, most frequent first."""
        counter = Counter(guess.category for guess in self.guesses if not guess.key)
        return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))

    def unsure(self) -> list[Guess]:
        """Return the guesses with low confidence."""
        return [guess for guess in self.guesses if guess.confidence == "low"]


def draft_pack(
    live: LiveSchema,
    counts: Mapping[Name, TableCounts],
    guesses: Sequence[Guess],
    *,
    name: str,
) -> Draft:
    """Draft a policy pack for a live database.

    Tables without columns are omitted. Views are omitted as well, because they only show the rows
    of tables.

    Args:
        live: result of ``read_schema``.
        counts: table -> result of ``count_patterns``.
        guesses: result of ``guess``.
        name: fides_key of the data map.
    """
    tables = {
        key: table for key, table in live.tables.items() if table.kind != "view" and table.columns
    }
    mapped_guesses = [guess for guess in guesses if (guess.schema, guess.table) in tables]
    names = _Names(tables)
    files = {
        f"datamap/{name}.yaml": _DataMap(name, names, live, counts, mapped_guesses).text(),
        f"quality/{name}.yaml": quality(name, tables, names.collections, counts, mapped_guesses),
        "purposes.yaml": purposes(name, names.collections, mapped_guesses),
    }
    counts_by_label = {
        tables[key].label: table_counts for key, table_counts in counts.items() if key in tables
    }
    return Draft(
        name=name,
        files=files,
        tables=len(tables),
        guesses=mapped_guesses,
        refused={
            label: table_counts.refused
            for label, table_counts in counts_by_label.items()
            if table_counts.refused
        },
        unread={
            label: table_counts.unread
            for label, table_counts in counts_by_label.items()
            if table_counts.unread
        },
        rows={
            label: table_counts.rows
            for label, table_counts in counts_by_label.items()
            if table_counts.columns
        },
    )


class _Names:
    """The names of the collections in a drafted data map.

    A collection has the name of its table. Outside of the main schema, the name begins with the
    name of the schema. The main schema is ``public``, or the schema with the most tables if there
    is no ``public``.
    """

    def __init__(self, tables: Mapping[Name, LiveTable]) -> None:
        self.tables = tables
        schemas = Counter(schema for schema, _table in tables)
        self.schema = "public" if "public" in schemas or not schemas else max(
            sorted(schemas), key=lambda schema: schemas[schema]
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

    def explicit_tables(self) -> Iterator[tuple[str, Name]]:
        """Yield the collections whose names alone do not identify a table.

        The data map must state the schema and the table of such a collection. Each item is the name
        of the collection, and the schema and name of its table.
        """
        for (schema, table), name in self.collections.items():
            head, dot, tail = name.partition(".")
            loaded = (head, tail) if head and dot and tail else (self.schema, name)
            if loaded != (schema, table):
                yield name, (schema, table)


class _DataMap:
    """Writes the text of a drafted data map, line by line."""

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
        for guess in guesses:
            self.guesses.setdefault((guess.schema, guess.table, guess.column), []).append(guess)
        self.lines = Lines()

    def text(self) -> str:
        self.lines.note(
            0,
            "A draft by ./parcelseal config map, from names, keys and counts of values.",
            "Correct it: a comment after each category has the confidence and reason of the guess.",
            "A column without a category was not recognised as personal data. Next steps:",
            "docs/reference/data-map.md.",
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
            "To decide: site (location of the primary), owner, department, class, rto_minutes,",
            "rpo_hours, and newest: a column whose greatest value dates a restored copy.",
        )
        explicit = list(self.names.explicit_tables())
        if explicit:
            self.lines.add(4, "collections:")
        for name, (schema, table) in explicit:
            location = flow_map([("schema", scalar(schema)), ("table", scalar(table))])
            self.lines.add(5, f"{scalar(name)}: {location}")
        self._unconfirmed()

    def _unconfirmed(self) -> None:
        """Write the list of the fields whose data category is an unconfirmed guess."""
        fields: dict[Name, dict[str, None]] = {}
        for (schema, table, column), guesses in self.guesses.items():
            paths = (f"{column}.{guess.key}" if guess.key else column for guess in guesses)
            fields.setdefault((schema, table), {}).update(dict.fromkeys(paths))
        if not fields:
            return
        self.lines.note(
            4,
            "Guessed categories. Delete a field here after a person has checked its categories.",
            "incident.yaml accepts no unconfirmed field, because its notices name categories.",
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
        for guess in guessed:
            if not guess.key:
                why = f"{guess.confidence}: {guess.reason}"
                self.lines.add(6, f"data_categories: {flow_list([guess.category])}", why)
                if guess.subject and guess.subject != _subject(self.contexts[key]):
                    self.lines.add(6, f"data_subjects: {flow_list([guess.subject])}")
        inside = [guess for guess in guessed if guess.key]
        # fideslang allows fields only inside objects
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
        for guess in inside:
            self.lines.add(7, f"- name: {scalar(guess.key)}")
            why = f"{guess.confidence}: {guess.reason}"
            self.lines.add(8, f"data_categories: {flow_list([guess.category])}", why)
        if inside:  # otherwise the next check would report the remaining keys as undeclared
            self._other_keys(key, column, {guess.key for guess in inside})

    def _other_keys(self, key: Name, column: LiveColumn, guessed: Collection[str]) -> None:
        """Write the keys of a JSON column that have no guessed data category.

        Args:
            key: schema and name of the table.
            column: the JSON column.
            guessed: keys of the JSON column for which a data category was guessed.
        """
        for name in self.counts[key].keys.get(column.name, {}):
            if name not in guessed:
                self.lines.add(7, f"- name: {scalar(name)}")

    def _references(self, table: LiveTable, column: LiveColumn) -> list[str]:
        references: dict[str, None] = {}
        for foreign in table.foreign_keys:
            for own_column, target_column in zip(foreign.columns, foreign.targets, strict=True):
                target = self.names.collections.get(foreign.target)
                if own_column == column.name and target is not None:
                    reference = flow_map([
                        ("dataset", scalar(self.name)),
                        ("field", scalar(f"{target}.{target_column}")),
                        ("direction", "to"),
                    ])  # fmt: skip
                    references.setdefault(reference)
        return list(references)


def _subject(context: Context) -> str:
    if context.subject is Subject.EMPLOYEE:
        return "employee"
    if not context.subject.is_person and context.people and not context.is_linked_to_customer:
        kinds = set(context.people.values())
        return "employee" if kinds == {Subject.EMPLOYEE} else "customer"
    all_words = (
        *words(context.table.name),
        *(w for person in context.people for w in words(person)),
    )
    singulars = [word.removesuffix("s") for word in all_words]
    return next((_SUBJECTS[word] for word in singulars if word in _SUBJECTS), "customer")
