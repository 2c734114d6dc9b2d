"""Convert validated fideslang Datasets to mapped databases.

The module also contains the models with which pack files name groups of staff and the staff table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from include.messages import verbatim
from include.policy.datamap import (
    DatabaseFacts,
    DatabaseMeta,
    MappedCollection,
    MappedDatabase,
    MappedField,
    Reference,
)
from include.policy.rules import Name, Rule, Sql, Targets, Text, Texts, translated_message

if TYPE_CHECKING:
    from fideslang.models import Dataset, DatasetCollection, DatasetField


class Inventory:
    """The names of databases, collections and fields in the data maps.

    If the data map of a database is unreadable, the methods that check a name accept every name in
    this database, because the data map may contain it. The methods that return names do not return
    names of this database.

    Attributes:
        categories: data categories of the taxonomy, including those that data maps add.
        unreadable: names of databases whose data map could not be parsed.
    """

    def __init__(self) -> None:
        self.categories: frozenset[str] = frozenset()
        self.unreadable: list[str] = []
        # database -> collection -> fields; keys inside JSON columns have dots: payload.phone
        self._names: dict[str, dict[str, set[str]]] = {}
        self._columns: dict[tuple[str, str], set[str]] = {}
        self._keys: dict[tuple[str, str], set[str]] = {}

    def add(self, database: str, raw: dict[str, Any]) -> None:
        """Add the names of collections and fields in a Dataset. Malformed items are skipped.

        Args:
            database: name of the database.
            raw: unvalidated content of the Dataset.
        """
        collections = self._names.setdefault(database, {})
        for collection in _named_items(raw.get("collections")):
            name, fields = collection["name"], _named_items(collection.get("fields"))
            collections.setdefault(name, set()).update(_field_paths(collection))
            columns = self._columns.setdefault((database, name), set())
            columns.update(column["name"] for column in fields)
            keys = self._keys.setdefault((database, name), set())
            keys.update(column["name"] for column in fields if _is_key(column))

    def __contains__(self, database: str) -> bool:
        return database in self._names or database in self.unreadable

    def databases_with(self, collection: str) -> list[str]:
        """Return the names of the databases that have a collection of this name."""
        return [name for name, collections in self._names.items() if collection in collections]

    def has_collection(self, database: str, collection: str) -> bool:
        """Return whether a database has a collection of this name."""
        return database in self.unreadable or collection in self._names.get(database, {})

    def collections_of(self, database: str) -> tuple[str, ...]:
        """Return the names of a database's collections; empty if its data map is unreadable."""
        return tuple(self._names.get(database, {}))

    def has_column(self, database: str, collection: str, column: str) -> bool:
        """Return whether a collection has a column of this name."""
        columns = self._columns.get((database, collection), set())
        return database in self.unreadable or column in columns

    def is_key(self, database: str, collection: str, column: str) -> bool:
        """Return whether a column belongs to the primary key of its collection.

        If the data map of the database is unreadable, return True.
        """
        keys = self._keys.get((database, collection), set())
        return database in self.unreadable or column in keys

    def has_field(self, database: str, collection: str, field: str) -> bool:
        """Return whether a collection has a field.

        A key inside a JSON column is written with dots, for example ``payload.phone``.
        """
        fields = self._names.get(database, {}).get(collection, set())
        return database in self.unreadable or field in fields

    def resolve(self, database: str, target: str) -> tuple[str, str] | None:
        """Split ``collection.field`` into the names of an existing collection and its field.

        Both names may contain dots themselves. Return None if the text names no existing field.

        Args:
            database: name of the database.
            target: the text.
        """
        return next(
            (
                (target[:at], target[at + 1 :])
                for at in _dots(target)
                if target[at + 1 :] in self._names.get(database, {}).get(target[:at], set())
            ),
            None,
        )

    def unresolved_reason(self, database: str, target: str) -> str | None:
        """Return why a text ``collection.field`` names no field of a database.

        Return None if the text names a field.

        Args:
            database: name of the database.
            target: the text.
        """
        if database in self.unreadable or self.resolve(database, target):
            return None
        for at in _dots(target):
            if self.has_collection(database, target[:at]):
                return f"collection {target[:at]!r} has no field {target[at + 1 :]!r}"
        return f"no collection of {database} is named in {target!r} (collection.field)"


def _dots(text: str) -> list[int]:
    """Return the positions of the dots in a text, last dot first.

    The caller splits ``collection.field`` at one of these dots, and tries the longest collection
    name first.
    """
    return [at for at in range(len(text) - 1, -1, -1) if text[at] == "."]


def _named_items(items: Any) -> list[dict[str, Any]]:
    return [
        item
        for item in (items if isinstance(items, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    ]


def _is_key(field: dict[str, Any]) -> bool:
    meta = field.get("fides_meta")
    return isinstance(meta, dict) and meta.get("primary_key") is True


def _field_paths(raw: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for field in _named_items(raw.get("fields")):
        yield prefix + field["name"]
        yield from _field_paths(field, f"{prefix}{field['name']}.")


def table_of(collection: str, meta: DatabaseMeta) -> tuple[str, str]:
    """Return the PostgreSQL schema and table of a collection.

    If ``meta.parcelseal.collections`` has a schema or table for the collection, use these.
    Otherwise read a name with a dot as ``schema.table``, and any other name as a table in the
    default schema of the database.

    Args:
        collection: name of the collection.
        meta: ParcelSeal's keys in the data map.
    """
    exceptions = meta.collections.get(collection)
    if exceptions and (exceptions.schema_name or exceptions.table):
        return exceptions.schema_name or meta.schema_name, exceptions.table or collection
    schema, dot, table = collection.partition(".")
    if schema and dot and table:
        return schema, table
    return meta.schema_name, collection


class FieldExceptions(NamedTuple):
    """What ParcelSeal's own YAML keys state about the fields of one collection.

    Attributes:
        unconfirmed: paths of fields whose data categories are not confirmed.
        titles: path of a field -> language -> display name.
    """

    unconfirmed: frozenset[str]
    titles: Mapping[str, Texts]


def mapped_database(
    dataset: Dataset,
    raw: dict[str, Any],
    meta: DatabaseMeta,
    targets: Targets,
    inventory: Inventory,
) -> MappedDatabase:
    """Convert a valid Dataset to a mapped database.

    Args:
        dataset: Dataset as fideslang read it. Its collections and fields are sorted by name.
        raw: content of the Dataset in the file, in the order in which the author wrote it. The
            result keeps this order.
        meta: ParcelSeal's keys in the Dataset.
        targets: recovery targets of databases for which the data map states none.
        inventory: names in all data maps.
    """
    by_name = {collection.name: collection for collection in dataset.collections}
    facts = database_facts(dataset.fides_key, dataset.name or dataset.fides_key, meta, targets)
    return MappedDatabase(
        **{name: getattr(facts, name) for name in DatabaseFacts.model_fields},
        collections={
            collection["name"]: _collection(
                dataset, by_name[collection["name"]], collection, meta, inventory
            )
            for collection in raw["collections"]
        },
    )


def database_facts(name: str, title: str, meta: DatabaseMeta, targets: Targets) -> DatabaseFacts:
    """Return what a data map states about a database, without the collections.

    Args:
        name: fides_key of the Dataset.
        title: display name of the database if ``meta`` states none.
        meta: ParcelSeal's keys in the Dataset.
        targets: recovery targets of databases for which the data map states none.
    """
    return DatabaseFacts(
        name=name,
        title=translated_message(meta.title) if meta.title else verbatim(title),
        connection=meta.connection,
        schema_name=meta.schema_name,
        site=meta.site,
        owner=meta.owner,
        department=meta.department,
        data_class=meta.data_class,
        rto=timedelta(minutes=meta.rto_minutes or targets.rto_minutes),
        rpo=timedelta(hours=meta.rpo_hours or targets.rpo_hours),
        newest=meta.newest,
    )


def _collection(
    dataset: Dataset,
    collection: DatasetCollection,
    raw: dict[str, Any],
    meta: DatabaseMeta,
    inventory: Inventory,
) -> MappedCollection:
    schema, table = table_of(collection.name, meta)
    exceptions = meta.collections.get(collection.name)
    by_name = {field.name: field for field in collection.fields}
    exceptions_by_path = FieldExceptions(
        frozenset(meta.unconfirmed.get(collection.name, ())),
        exceptions.field_titles if exceptions else {},
    )
    return MappedCollection(
        name=collection.name,
        schema_name=schema,
        table=table,
        data_class=(exceptions and exceptions.data_class) or meta.data_class,
        department=(exceptions and exceptions.department) or meta.department,
        owner=(exceptions and exceptions.owner) or meta.owner,
        description=collection.description,
        fields={
            field["name"]: _field(
                by_name[field["name"]], (dataset, collection), inventory, exceptions_by_path
            )
            for field in raw["fields"]
        },
        titles=exceptions.title if exceptions else None,
    )


def _field(
    field: DatasetField,
    parents: tuple[Dataset | DatasetCollection | DatasetField, ...],
    inventory: Inventory,
    exceptions: FieldExceptions,
    prefix: str = "",
) -> MappedField:
    """Convert a field of a Dataset to a mapped field.

    A field inherits the data categories and data uses of its database, its collection and the field
    that contains it. If a field states no data subjects, it inherits those of the innermost level
    that states some. Data subjects are not combined, because a table about customers may have a
    column about the clerk who entered the record.

    Args:
        field: the field.
        parents: Dataset, collection and fields that contain the field, outermost first.
        inventory: names in all data maps.
        exceptions: what ParcelSeal's own YAML keys state about fields of the collection:
            unconfirmed categories and titles.
        prefix: path of the containing field, followed by a dot; empty for a column.
    """
    chain = (*parents, field)
    path = prefix + field.name
    meta = field.fides_meta
    return MappedField(
        name=field.name,
        categories=_unique(category for part in chain for category in part.data_categories or ()),
        uses=_unique(use for part in chain for use in part.data_uses or ()),
        subjects=next(
            (tuple(part.data_subjects) for part in reversed(chain) if part.data_subjects), ()
        ),
        is_confirmed=path not in exceptions.unconfirmed,
        primary_key=bool(meta and meta.primary_key),
        data_type=meta.data_type if meta else None,
        identity=meta.identity if meta else None,
        references=tuple(
            _reference(ref.dataset, ref.field, ref.direction and ref.direction.value, inventory)
            for ref in (meta and meta.references) or ()
        ),
        fields={
            inner.name: _field(inner, chain, inventory, exceptions, f"{path}.")
            for inner in field.fields or ()
        },
        titles=exceptions.titles.get(path),
    )


def _reference(database: str, target: str, direction: Any, inventory: Inventory) -> Reference:
    collection, field = inventory.resolve(database, target) or ("", target)
    return Reference(database=database, collection=collection, field=field, direction=direction)


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


Loc = tuple[str | int, ...]


def as_tuple(value: Any) -> Any:
    """Convert a text to a tuple with one item, and a list to a tuple.

    Return other values unchanged.
    """
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class StaffGroup(Rule):
    """A group of staff, given as user ids in Airflow, as an SQL condition, or as both.

    Attributes:
        accounts: User ids of the people in Airflow.
        where: SQL condition over the row ``p`` of the staff table that selects the people.
    """

    accounts: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = ()
    where: Sql | None = None


class StaffTable(Rule):
    """The table of the company's staff, which contains people's user ids in Airflow.

    Attributes:
        database: Database of the data map; required if several databases have the collection.
        collection: Collection with one record per staff member.
        account: Column with the user id of the staff member in Airflow.
    """

    database: Name | None = None
    collection: Name
    account: Name


def staff_faults(staff: StaffTable | None, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Yield a fault if the collection or column of the staff table does not exist.

    Args:
        staff: the staff table as the pack names it; None if the pack names none.
        inventory: names in the data maps.

    Yields:
        Path of the faulty value, starting with ``staff``, and a message.
    """
    if staff is None:
        return
    databases = inventory.databases_with(staff.collection)
    named = staff.database
    if not databases or (named is not None and named not in databases):
        message = f"no data map has a collection {staff.collection!r}"
        yield ("staff", "collection"), message
    elif named is None and len(databases) > 1:
        message = f"several databases have it: name one as database: {', '.join(databases)}"
        yield ("staff", "collection"), message
    elif not inventory.has_column(named or databases[0], staff.collection, staff.account):
        message = f"collection {staff.collection!r} has no field {staff.account!r}"
        yield ("staff", "account"), message
