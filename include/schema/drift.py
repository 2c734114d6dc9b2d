"""Where a live database and its data map part: what the map lacks, and what is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from include.evidence.model import Outcome
from include.policy.datamap import MappedCollection, MappedDatabase
from include.schema.live import LiveSchema, LiveTable, Name, agrees, fides_type


class DriftKind(StrEnum):
    """How the database and the map differ."""

    UNDECLARED_SCHEMA = "undeclared_schema"
    UNDECLARED_TABLE = "undeclared_table"
    UNDECLARED_COLUMN = "undeclared_column"
    MISSING_TABLE = "missing_table"
    MISSING_COLUMN = "missing_column"
    PRIMARY_KEY = "primary_key"
    TYPE = "type"
    REFERENCE_WITHOUT_KEY = "reference_without_key"
    KEY_WITHOUT_REFERENCE = "key_without_reference"


# What is stored and nobody declared is collected outside every purpose (clause 4.1), and what is
# gone or has another key is no longer checked: the control does not hold. The rest is for somebody
# to look at: a map may know relations that the database does not enforce.
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
    """One difference. Names and types only, never a value.

    Attributes:
        kind: how they differ.
        database: name of the mapped database.
        schema: PostgreSQL schema.
        table: table in it; empty for a schema that the map does not use at all.
        column: column, or columns of a key with commas; empty where a table is meant.
        severity: ``fail`` or ``attention``.
        mapped: what the map says: type, key or the other end of a reference.
        live: what the database has, likewise.
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
    def place(self) -> str:
        """Database, schema and table for people."""
        return ".".join(part for part in (self.database, self.schema, self.table) if part)


class _End(NamedTuple):
    """One end of a relation between two columns."""

    schema: str
    table: str
    column: str

    def __str__(self) -> str:
        return ".".join(self)


def mapped_schemas(database: MappedDatabase) -> tuple[str, ...]:
    """The PostgreSQL schemas that a data map uses, in its order."""
    return tuple(dict.fromkeys(one.schema_name for one in database.collections.values()))


def drift(
    live: LiveSchema, database: MappedDatabase, others: Collection[MappedDatabase] = ()
) -> list[Drift]:
    """Compare a live schema with the data map, tables in the database's order.

    In schemas that the map uses, every table has to be mapped; views only show what tables hold and
    need not be. Schemas that it does not use are named as a whole, once each. What the map does not
    say (a type, a key) is not compared, nor are keys inside JSON columns.

    Args:
        live: of ``read_schema``, of the mapped schemas or of all.
        database: the data map.
        others: further maps of the same live database, whose tables are declared too.
    """
    return list(_Comparison(live, database, others).differences())


class _Comparison:
    def __init__(
        self, live: LiveSchema, database: MappedDatabase, others: Collection[MappedDatabase]
    ) -> None:
        self.live = live
        self.database = database
        self.mapped: dict[Name, MappedCollection] = {
            (one.schema_name, one.table): one for one in database.collections.values()
        }
        self.schemas = set(mapped_schemas(database))
        self.schemas_elsewhere = {name for other in others for name in mapped_schemas(other)}
        self.elsewhere = {
            (one.schema_name, one.table) for other in others for one in other.collections.values()
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
        """A table that the map lacks; of one that inherits from mapped ones, only what it adds."""
        name = (table.schema, table.name)
        if any(one in self.mapped for one in table.parents):
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
            said = field.data_type or ("object" if field.fields else None)
            if said and not agrees(column, said):
                shown = f"{column.type} ({fides_type(column)})"
                yield self._note(DriftKind.TYPE, name, column.name, said, shown)
        for field_name in collection.fields:
            if field_name not in table.columns:
                yield self._note(DriftKind.MISSING_COLUMN, name, field_name)
        # The order of a key's columns is not the map's to say. Views have no key.
        said_key = collection.primary_key
        has_keys = table.kind in ("table", "partitioned")
        if has_keys and said_key and set(said_key) != set(table.primary_key):
            yield self._note(
                DriftKind.PRIMARY_KEY,
                name,
                mapped=", ".join(said_key),
                live=", ".join(table.primary_key),
            )

    def _relations(self) -> Iterator[Drift]:
        """References without a foreign key, and foreign keys without a reference.

        Fides' direction is an order of looking up and not which end is the key, so that a pair
        matches either way round.
        """
        said = {frozenset(ends): ends for ends in self._references()}
        keys = {frozenset(ends): ends for ends in self._keys()}
        for pair, (near, far) in said.items():
            if pair not in keys and self._is_live(near) and self._is_live(far):
                yield self._relation(DriftKind.REFERENCE_WITHOUT_KEY, near, mapped=str(far))
        for pair, (near, far) in keys.items():
            if pair not in said and self._is_mapped(near) and self._is_mapped(far):
                yield self._relation(DriftKind.KEY_WITHOUT_REFERENCE, near, live=str(far))

    def _relation(self, kind: DriftKind, near: _End, mapped: str = "", live: str = "") -> Drift:
        return self._note(kind, (near.schema, near.table), near.column, mapped, live)

    def _references(self) -> Iterator[tuple[_End, _End]]:
        for name, collection in self.mapped.items():
            for field in collection.fields.values():
                for one in field.references:
                    other = self.database.collections.get(one.collection)
                    if one.database == self.database.name and other is not None:
                        far = _End(other.schema_name, other.table, one.field)
                        yield _End(*name, field.name), far

    def _keys(self) -> Iterator[tuple[_End, _End]]:
        for name, table in self.live.tables.items():
            for key in table.foreign_keys:
                for column, target in zip(key.columns, key.targets, strict=True):
                    yield _End(*name, column), _End(*key.target, target)

    def _is_live(self, end: _End) -> bool:
        """Whether it is a column of a table that could have a foreign key."""
        table = self.live.tables.get((end.schema, end.table))
        return (
            table is not None
            and table.kind in ("table", "partitioned")
            and end.column in table.columns
        )

    def _is_mapped(self, end: _End) -> bool:
        collection = self.mapped.get((end.schema, end.table))
        return collection is not None and end.column in collection.fields
