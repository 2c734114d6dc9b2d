"""Mapped databases from checked fideslang Datasets, and the groups of people in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from include.policy.datamap import (
    DatabaseFacts,
    DatabaseMeta,
    MappedCollection,
    MappedDatabase,
    MappedField,
    Reference,
)
from include.policy.rules import Name, Rule, Sql, Targets, Text

if TYPE_CHECKING:
    from fideslang.models import Dataset, DatasetCollection, DatasetField


class Inventory:
    """Which databases, collections and fields the data maps name.

    Attributes:
        categories: data categories of the taxonomy, those of the data maps included.
        unreadable: databases of maps that are no YAML: they may have every collection and field.
    """

    def __init__(self) -> None:
        self.categories: frozenset[str] = frozenset()
        self.unreadable: list[str] = []
        # database -> collection -> fields, keys inside JSON columns with dots: payload.phone
        self._names: dict[str, dict[str, set[str]]] = {}
        self._columns: dict[tuple[str, str], set[str]] = {}
        self._keys: dict[tuple[str, str], set[str]] = {}

    def add(self, database: str, raw: dict[str, Any]) -> None:
        """Take in the names of a raw Dataset; what is malformed is passed over."""
        collections = self._names.setdefault(database, {})
        for one in _named(raw.get("collections")):
            fields = collections.setdefault(one["name"], set())
            fields.update(_field_paths(one))
            columns = self._columns.setdefault((database, one["name"]), set())
            columns.update(column["name"] for column in _named(one.get("fields")))
            keys = self._keys.setdefault((database, one["name"]), set())
            keys.update(column["name"] for column in _named(one.get("fields")) if _is_key(column))

    def __contains__(self, database: str) -> bool:
        return database in self._names or database in self.unreadable

    def databases_with(self, collection: str) -> list[str]:
        """The databases that have a collection of that name."""
        return [name for name, found in self._names.items() if collection in found]

    def has_collection(self, database: str, collection: str) -> bool:
        """Whether a database has the collection."""
        return database in self.unreadable or collection in self._names.get(database, {})

    def collections_of(self, database: str) -> tuple[str, ...]:
        """The names of a database's collections; empty where its map is no YAML."""
        return tuple(self._names.get(database, {}))

    def has_column(self, database: str, collection: str, column: str) -> bool:
        """Whether a collection has a field of that name, keys inside JSON columns left out."""
        columns = self._columns.get((database, collection), set())
        return database in self.unreadable or column in columns

    def is_key(self, database: str, collection: str, column: str) -> bool:
        """Whether a field belongs to its collection's primary key."""
        keys = self._keys.get((database, collection), set())
        return database in self.unreadable or column in keys

    def has_field(self, database: str, collection: str, field: str) -> bool:
        """Whether a collection has a field of that name; keys inside JSON columns with dots."""
        fields = self._names.get(database, {}).get(collection, set())
        return database in self.unreadable or field in fields

    def resolve(self, database: str, target: str) -> tuple[str, str] | None:
        """Split ``collection.field`` at the dot that makes sense; both may have dots in them."""
        return next(
            (
                (target[:at], target[at + 1 :])
                for at in _dots(target)
                if target[at + 1 :] in self._names.get(database, {}).get(target[:at], set())
            ),
            None,
        )

    def why_not(self, database: str, target: str) -> str | None:
        """Why ``collection.field`` leads nowhere in a mapped database; None when it leads."""
        if database in self.unreadable or self.resolve(database, target):
            return None
        for at in _dots(target):
            if self.has_collection(database, target[:at]):
                return f"collection {target[:at]!r} has no field {target[at + 1 :]!r}"
        return f"no collection of {database} is named in {target!r} (collection.field)"


def _dots(text: str) -> list[int]:
    """Positions of dots, the last first: the longest collection name wins."""
    return [at for at in range(len(text) - 1, -1, -1) if text[at] == "."]


def _named(items: Any) -> list[dict[str, Any]]:
    found = items if isinstance(items, list) else []
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]


def _is_key(field: dict[str, Any]) -> bool:
    meta = field.get("fides_meta")
    return isinstance(meta, dict) and meta.get("primary_key") is True


def _field_paths(raw: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for one in _named(raw.get("fields")):
        yield prefix + one["name"]
        yield from _field_paths(one, f"{prefix}{one['name']}.")


def table_of(collection: str, meta: DatabaseMeta) -> tuple[str, str]:
    """Schema and table of a collection.

    Where ``meta.parcelseal.collections`` says nothing, ``schema.table`` is split at its first
    dot, and any other name is a table of the database's schema.
    """
    said = meta.collections.get(collection)
    if said and (said.schema_name or said.table):
        return said.schema_name or meta.schema_name, said.table or collection
    schema, dot, table = collection.partition(".")
    if schema and dot and table:
        return schema, table
    return meta.schema_name, collection


def mapped_database(
    dataset: Dataset,
    raw: dict[str, Any],
    meta: DatabaseMeta,
    targets: Targets,
    inventory: Inventory,
) -> MappedDatabase:
    """The typed view of a Dataset without faults.

    Args:
        dataset: as fideslang read it (it sorts collections and fields by name).
        raw: as written, for the order.
        meta: our keys.
        targets: recovery targets where the Dataset names none.
        inventory: of all Datasets.
    """
    by_name = {one.name: one for one in dataset.collections}
    facts = database_facts(dataset.fides_key, dataset.name or dataset.fides_key, meta, targets)
    return MappedDatabase(
        **{name: getattr(facts, name) for name in DatabaseFacts.model_fields},
        collections={
            one["name"]: _collection(dataset, by_name[one["name"]], one, meta, inventory)
            for one in raw["collections"]
        },
    )


def database_facts(name: str, title: str, meta: DatabaseMeta, targets: Targets) -> DatabaseFacts:
    """Return a database without its collections.

    Args:
        name: its fides_key.
        title: its name for people.
        meta: our keys.
        targets: recovery targets where our keys name none.
    """
    return DatabaseFacts(
        name=name,
        title=title,
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
    said = meta.collections.get(collection.name)
    by_name = {one.name: one for one in collection.fields}
    guessed = frozenset(meta.unconfirmed.get(collection.name, ()))
    return MappedCollection(
        name=collection.name,
        schema_name=schema,
        table=table,
        data_class=(said and said.data_class) or meta.data_class,
        department=(said and said.department) or meta.department,
        owner=(said and said.owner) or meta.owner,
        description=collection.description,
        fields={
            one["name"]: _field(by_name[one["name"]], (dataset, collection), inventory, guessed)
            for one in raw["fields"]
        },
    )


def _field(
    field: DatasetField,
    above: tuple[Dataset | DatasetCollection | DatasetField, ...],
    inv: Inventory,
    unconfirmed: frozenset[str],
    prefix: str = "",
) -> MappedField:
    """Map a field.

    Categories and uses of its collection, its database and the field around it hold for it too. Of
    data subjects those of the nearest level hold: the clerk who typed a customer's record in is the
    subject of one column in a table about customers.
    """
    chain = (*above, field)
    path = prefix + field.name
    meta = field.fides_meta
    return MappedField(
        name=field.name,
        categories=_once(one for part in chain for one in part.data_categories or ()),
        uses=_once(one for part in chain for one in part.data_uses or ()),
        subjects=next(
            (tuple(part.data_subjects) for part in reversed(chain) if part.data_subjects), ()
        ),
        is_confirmed=path not in unconfirmed,
        primary_key=bool(meta and meta.primary_key),
        data_type=meta.data_type if meta else None,
        identity=meta.identity if meta else None,
        references=tuple(
            _reference(one.dataset, one.field, one.direction and one.direction.value, inv)
            for one in (meta and meta.references) or ()
        ),
        fields={
            one.name: _field(one, chain, inv, unconfirmed, f"{path}.") for one in field.fields or ()
        },
    )


def _reference(database: str, target: str, direction: Any, inventory: Inventory) -> Reference:
    collection, field = inventory.resolve(database, target) or ("", target)
    return Reference(database=database, collection=collection, field=field, direction=direction)


def _once(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


Loc = tuple[str | int, ...]


def as_tuple(value: Any) -> Any:
    """One text is a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class Group(Rule):
    """People of one duty, by user id in Airflow.

    Attributes:
        accounts: user ids.
        where: SQL condition over the staff row ``p`` of the ``staff`` beside it.
    """

    accounts: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = ()
    where: Sql | None = None


class Staff(Rule):
    """Where the people are.

    Attributes:
        database: database of the data map; needed where several have the collection.
        collection: staff table.
        account: column with the person's user id in Airflow.
    """

    database: Name | None = None
    collection: Name
    account: Name


def staff_faults(staff: Staff | None, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Say what of a staff table the data maps do not have; places begin at ``staff``."""
    if staff is None:
        return
    holders = inventory.databases_with(staff.collection)
    named = staff.database
    if not holders or (named is not None and named not in holders):
        message = f"no data map has a collection {staff.collection!r}"
        yield ("staff", "collection"), message
    elif named is None and len(holders) > 1:
        message = f"several databases have it: name one as database: {', '.join(holders)}"
        yield ("staff", "collection"), message
    elif not inventory.has_column(named or holders[0], staff.collection, staff.account):
        message = f"collection {staff.collection!r} has no field {staff.account!r}"
        yield ("staff", "account"), message
