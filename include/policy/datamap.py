"""The mapped databases: what a data map says, typed, and our own keys under its ``meta``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from include.policy.problems import PackError, PackProblem
from include.policy.rules import Name, Positive, Rule, Text

META_KEY = "parcelseal"
"""The one key of ours inside a fideslang Dataset's ``meta``."""


class NewestClock(Rule):
    """A column whose greatest value is the time of a collection's newest record.

    Attributes:
        collection: collection of the same database.
        field: timestamp or date column in it.
    """

    collection: Name
    field: Name


class CollectionMeta(Rule):
    """``meta.parcelseal.collections.<name>``: what the data map cannot say of a table.

    Attributes:
        schema_name: PostgreSQL schema.
        table: table, where the collection is named otherwise.
        data_class: the company's class of the data.
        department: department that answers for it.
        owner: person or role that answers for it.
    """

    schema_name: Annotated[Name | None, Field(alias="schema")] = None
    table: Name | None = None
    data_class: Annotated[Text | None, Field(alias="class")] = None
    department: Text | None = None
    owner: Text | None = None


class DatabaseMeta(Rule):
    """``meta.parcelseal`` of a Dataset; every key has a default.

    Attributes:
        connection: id of the Airflow connection.
        schema_name: PostgreSQL schema of collections that name none.
        site: site where the primary stands; a backup has to be at another.
        owner: person or role that answers for the database.
        department: department that answers for it.
        data_class: class of collections that name none.
        rto_minutes: recovery time objective, else of backup.yaml.
        rpo_hours: recovery point objective, else of backup.yaml.
        newest: columns that show how fresh a copy is.
        collections: exceptions, by collection.
        unconfirmed: fields whose data categories are a draft's guesses, by collection; keys inside
            JSON columns with dots.
    """

    connection: Text = "customer_db"
    schema_name: Annotated[Name, Field(alias="schema")] = "public"
    site: Text | None = None
    owner: Text | None = None
    department: Text | None = None
    data_class: Annotated[Text | None, Field(alias="class")] = None
    rto_minutes: Positive | None = None
    rpo_hours: Positive | None = None
    newest: tuple[NewestClock, ...] = ()
    collections: Mapping[str, CollectionMeta] = {}
    unconfirmed: Mapping[str, tuple[Name, ...]] = {}


class Reference(Rule):
    """Another field that this field's values lead to, or are led to from.

    Attributes:
        database: name of the database; it may be one that the pack does not map.
        collection: collection there, empty when that database is not mapped.
        field: field there; ``collection.field`` as written when it is not mapped.
        direction: Fides' order of looking records up, ``to`` the other field or ``from`` it; it
            does not say which of the two is the foreign key. None where the map is silent.
    """

    database: str
    collection: str
    field: str
    direction: Literal["from", "to"] | None = None


class MappedField(Rule):
    """A column, or a key inside a JSON column.

    Attributes:
        name: name of the column.
        categories: fideslang data categories, those of its collection and database included.
        uses: fideslang data uses, likewise.
        subjects: fideslang data subjects: its own, or else those of the nearest level above it
            that names any.
        is_confirmed: whether a person has confirmed its categories.
        primary_key: whether it belongs to the primary key.
        data_type: fideslang data type, where named.
        identity: kind of identity it holds (``email``), where named.
        references: keys to and from other fields.
        fields: keys inside a JSON column.
    """

    name: str
    categories: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    is_confirmed: bool = True
    primary_key: bool = False
    data_type: str | None = None
    identity: str | None = None
    references: tuple[Reference, ...] = ()
    fields: Mapping[str, MappedField] = {}

    @property
    def is_personal(self) -> bool:
        """Whether it holds data about a person: any category of ``user``."""
        return any(one == "user" or one.startswith("user.") for one in self.categories)


class MappedCollection(Rule):
    """A table of a mapped database.

    Attributes:
        name: name of the collection in the data map.
        schema_name: PostgreSQL schema.
        table: name of the table, as PostgreSQL spells it.
        data_class: the company's class of the data, None when nobody classified it.
        department: department that answers for it.
        owner: person or role that answers for it.
        description: of the data map.
        fields: columns by name, in the order of the data map.
    """

    name: str
    schema_name: str
    table: str
    data_class: str | None = None
    department: str | None = None
    owner: str | None = None
    description: str | None = None
    fields: Mapping[str, MappedField]

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        """Fields with an unconfirmed personal category; dots separate keys inside JSON columns."""
        return tuple(_unconfirmed(self.fields, ""))

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Columns of the primary key, in the order of the data map; empty when none is marked."""
        return tuple(name for name, field in self.fields.items() if field.primary_key)

    def fields_about(self, subjects: Sequence[str]) -> dict[str, MappedField]:
        """Return the fields with personal data of some data subjects, by column.

        Fields of other data subjects do not count, such as the clerk who entered a customer's
        record. A field without a data subject counts for all.

        Args:
            subjects: fideslang data subjects; empty for all.
        """
        return {
            name: field
            for name, field in self.fields.items()
            if field.is_personal or any(inner.is_personal for inner in field.fields.values())
            if not subjects or not field.subjects or {*subjects} & {*field.subjects}
        }


class DatabaseFacts(Rule):
    """A mapped database without its collections.

    Attributes:
        name: the Dataset's fides_key; what ``--database`` takes.
        title: the Dataset's name for people; its fides_key when it has none.
        connection: id of the Airflow connection.
        schema_name: PostgreSQL schema of collections that name none.
        site: site of the primary, None when not named.
        owner: person or role that answers for the database.
        department: department that answers for it.
        data_class: class of collections that name none.
        rto: recovery time objective.
        rpo: recovery point objective.
        newest: columns that show how fresh a copy is.
    """

    name: str
    title: str
    connection: str
    schema_name: str
    site: str | None = None
    owner: str | None = None
    department: str | None = None
    data_class: str | None = None
    rto: timedelta
    rpo: timedelta
    newest: tuple[NewestClock, ...] = ()


class MappedDatabase(DatabaseFacts):
    """A database that the pack puts under the policy.

    Attributes:
        collections: by name, in the order of the data map; of a compiled pack read at first use.
    """

    collections: Mapping[str, MappedCollection]

    @property
    def is_faulty(self) -> bool:
        """Whether its data map has problems, so that no workflow may work on it."""
        return isinstance(self.collections, FaultyCollections)


_Item = TypeVar("_Item")


class LazyMapping(Mapping[str, _Item]):
    """Items whose names are known; each is read when it is asked for.

    Args:
        names: of the items, in their order.
        read: returns the item of one of these names.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], _Item]) -> None:
        self._names = dict.fromkeys(names)
        self._item = read

    def __getitem__(self, name: str) -> _Item:
        if name not in self._names:
            raise KeyError(name)
        return self._item(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class FaultyCollections(LazyMapping[MappedCollection]):
    """The collections of a database whose data map is faulty: names only.

    Args:
        names: of the collections, as far as the map can be read.
        folder: of the pack.
        problems: of the data map.
    """

    def __init__(self, names: Sequence[str], folder: Path, problems: Sequence[PackProblem]) -> None:
        super().__init__(names, self._refuse)
        self._error = PackError(folder, problems)

    def _refuse(self, _name: str) -> MappedCollection:
        raise self._error


def _unconfirmed(fields: Mapping[str, MappedField], prefix: str) -> Iterator[str]:
    for name, field in fields.items():
        if field.is_personal and not field.is_confirmed:
            yield prefix + name
        yield from _unconfirmed(field.fields, f"{prefix}{name}.")
