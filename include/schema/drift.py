"""Find the differences between a live database and its data map."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from include.evidence.model import Outcome
from include.policy.datamap import MappedCollection, MappedDatabase
from include.schema.live import LiveSchema, LiveTable, Name, fides_type, matches_type


class DriftKind(StrEnum):
    """The kind of difference between the live database and the data map."""

    UNDECLARED_SCHEMA = "undeclared_schema"
    UNDECLARED_TABLE = "undeclared_table"
    UNDECLARED_COLUMN = "undeclared_column"
    MISSING_TABLE = "missing_table"
    MISSING_COLUMN = "missing_column"
    PRIMARY_KEY = "primary_key"
    TYPE = "type"
    REFERENCE_WITHOUT_KEY = "reference_without_key"
    KEY_WITHOUT_REFERENCE = "key_without_reference"


# Undeclared data is collected without a purpose (clause 4.1). Missing tables and
# changed keys cannot be checked, so the control fails. The other kinds only need attention: a map
# may declare relations that the database does not enforce.
SEVERITY = {
    DriftKind.UNDECLARED_SCHEMA: Outcome.ATTENTION,
    DriftKind.UNDECLARED_TABLE: Outcome.FAIL,
    DriftKind.UNDECLARED_COLUMN: Outcome.FAIL,
    DriftKind.MISSING_TABLE: Outcome.FAIL,
    DriftKind.MISSING_COLUMN: Outcome.FAIL,
    DriftKind.PRIMARY_KEY: Outcome.FAIL,
    DriftKind.TYPE: Outcome.ATTENTION,
    DriftKind.REFERENCE_WITHOUT_KEY: Outcome.ATTENTION,
    DriftKind.KEY_WITHOUT_REFERENCE: Outcome.ATTENTION,
}


@dataclass(frozen=True)
class Drift:
    """A difference between the live database and the data map.

    It contains names and types, but never values of records.

    Attributes:
        kind: kind of difference.
        database: name of the mapped database.
        schema: PostgreSQL schema.
        table: table in the schema; empty if the difference is that the whole schema is not mapped.
        column: name of the column, or the columns of a key, separated by commas; empty if the
            difference concerns the whole table.
        severity: ``fail`` or ``attention``.
        mapped: type, key or reference in the data map.
        live: type, key or foreign key in the live database.
    """

    kind: DriftKind
    database: str
    schema: str
    table: str
    column: str = ""
    severity: Outcome = Outcome.ATTENTION
    mapped: str = ""
    live: str = ""

    @property
    def label(self) -> str:
        """Return the database, the schema and the table, separated by dots."""
        return ".".join(part for part in (self.database, self.schema, self.table) if part)


class _End(NamedTuple):
    """One of the two columns that a foreign key or a reference connects."""

    schema: str
    table: str
    column: str

    def __str__(self) -> str:
        return ".".join(self)


def mapped_schemas(database: MappedDatabase) -> tuple[str, ...]:
    """Return the PostgreSQL schemas that a data map uses, in the order of the data map."""
    return tuple(
        dict.fromkeys(collection.schema_name for collection in database.collections.values())
    )


def find_drift(
    live: LiveSchema, database: MappedDatabase, others: Collection[MappedDatabase] = ()
) -> list[Drift]:
    """Return the differences between a live schema and the data map.

    In a PostgreSQL schema that contains a mapped table, every other table must be mapped as well;
    views need not be mapped. A PostgreSQL schema without a mapped table is reported as one
    difference. Types and keys that the data map omits are not compared. Keys inside JSON columns
    are not compared.

    Args:
        live: result of ``read_schema``, for the mapped schemas or for all schemas.
        database: the data map.
        others: other data maps of the same live database. Their tables count as mapped.

    Returns:
        The differences, in the order of the live tables.
    """
    return list(_Comparison(live, database, others).differences())


class _Comparison:
    def __init__(
        self, live: LiveSchema, database: MappedDatabase, others: Collection[MappedDatabase]
    ) -> None:
        self.live = live
        self.database = database
        self.mapped: dict[Name, MappedCollection] = {
            (collection.schema_name, collection.table): collection
            for collection in database.collections.values()
        }
        self.schemas = set(mapped_schemas(database))
        self.schemas_elsewhere = {name for other in others for name in mapped_schemas(other)}
        self.elsewhere = {
            (mapped_collection.schema_name, mapped_collection.table)
            for other in others
            for mapped_collection in other.collections.values()
        }

    def differences(self) -> Iterator[Drift]:
        unused: dict[str, None] = {}
        for name, table in self.live.tables.items():
            if name in self.mapped:
                yield from self._table(table, self.mapped[name])
            elif name in self.elsewhere or table.kind == "view" or not table.columns:
                continue
            elif table.schema in self.schemas:
                yield from self._undeclared(table)
            elif table.schema not in self.schemas_elsewhere:
                unused.setdefault(table.schema)
        for name, collection in self.mapped.items():
            if name not in self.live.tables:
                yield self._note(DriftKind.MISSING_TABLE, name, mapped=collection.name)
        yield from self._relations()
        for schema in unused:
            yield self._note(DriftKind.UNDECLARED_SCHEMA, (schema, ""))

    def _note(
        self, kind: DriftKind, name: Name, column: str = "", mapped: str = "", live: str = ""
    ) -> Drift:
        return Drift(kind, self.database.name, *name, column, SEVERITY[kind], mapped, live)

    def _undeclared(self, table: LiveTable) -> Iterator[Drift]:
        """Yield the differences for a table that is not mapped.

        If the table inherits from a mapped table, only the columns that it adds are differences.
        """
        name = (table.schema, table.name)
        if any(parent in self.mapped for parent in table.parents):
            for column in table.columns.values():
                if column.own:
                    yield self._note(
                        DriftKind.UNDECLARED_COLUMN, name, column.name, live=column.type
                    )
        else:
            yield self._note(DriftKind.UNDECLARED_TABLE, name, live=str(len(table.columns)))

    def _table(self, table: LiveTable, collection: MappedCollection) -> Iterator[Drift]:
        name = (table.schema, table.name)
        for column in table.columns.values():
            field = collection.fields.get(column.name)
            if field is None:
                yield self._note(DriftKind.UNDECLARED_COLUMN, name, column.name, live=column.type)
                continue
            mapped_type = field.data_type or ("object" if field.fields else None)
            if mapped_type and not matches_type(column, mapped_type):
                live_type = f"{column.type} ({fides_type(column)})"
                yield self._note(DriftKind.TYPE, name, column.name, mapped_type, live_type)
        for field_name in collection.fields:
            if field_name not in table.columns:
                yield self._note(DriftKind.MISSING_COLUMN, name, field_name)
        # The map does not define the order of key columns. Views have no key.
        mapped_key = collection.primary_key
        has_keys = table.kind in ("table", "partitioned")
        if has_keys and mapped_key and set(mapped_key) != set(table.primary_key):
            yield self._note(
                DriftKind.PRIMARY_KEY,
                name,
                mapped=", ".join(mapped_key),
                live=", ".join(table.primary_key),
            )

    def _relations(self) -> Iterator[Drift]:
        """Yield references without a foreign key, and foreign keys without a reference.

        References are declared in the data map; foreign keys exist in the database. In Fides, the
        direction of a reference is the order in which records are searched. It may differ from the
        direction of the foreign key. Therefore a reference matches a foreign key in either
        direction.
        """
        references = {frozenset(ends): ends for ends in self._references()}
        keys = {frozenset(ends): ends for ends in self._keys()}
        for pair, (near, far) in references.items():
            if pair not in keys and self._is_live(near) and self._is_live(far):
                yield self._relation(DriftKind.REFERENCE_WITHOUT_KEY, near, mapped=str(far))
        for pair, (near, far) in keys.items():
            if pair not in references and self._is_mapped(near) and self._is_mapped(far):
                yield self._relation(DriftKind.KEY_WITHOUT_REFERENCE, near, live=str(far))

    def _relation(self, kind: DriftKind, near: _End, mapped: str = "", live: str = "") -> Drift:
        return self._note(kind, (near.schema, near.table), near.column, mapped, live)

    def _references(self) -> Iterator[tuple[_End, _End]]:
        for name, collection in self.mapped.items():
            for field in collection.fields.values():
                for reference in field.references:
                    other = self.database.collections.get(reference.collection)
                    if reference.database == self.database.name and other is not None:
                        far = _End(other.schema_name, other.table, reference.field)
                        yield _End(*name, field.name), far

    def _keys(self) -> Iterator[tuple[_End, _End]]:
        for name, table in self.live.tables.items():
            for key in table.foreign_keys:
                for column, target in zip(key.columns, key.targets, strict=True):
                    yield _End(*name, column), _End(*key.target, target)

    def _is_live(self, end: _End) -> bool:
        """Return whether a column exists in the database, in a table that can have foreign keys."""
        table = self.live.tables.get((end.schema, end.table))
        return (
            table is not None
            and table.kind in ("table", "partitioned")
            and end.column in table.columns
        )

    def _is_mapped(self, end: _End) -> bool:
        collection = self.mapped.get((end.schema, end.table))
        return collection is not None and end.column in collection.fields
