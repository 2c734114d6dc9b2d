"""Models of the content of data maps: databases, collections, fields, and ParcelSeal's own keys.

ParcelSeal's own keys are those that fideslang does not define. They are under ``meta`` in the
Dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from include.messages import Message, _, verbatim
from include.policy.problems import PackError, PackProblem
from include.policy.rules import Name, Positive, Rule, Text, Texts, translated_message

META_KEY = "parcelseal"
"""ParcelSeal's key inside a fideslang Dataset's ``meta``."""


class NewestRecordField(Rule):
    """A column whose greatest value is the time of the newest record in a restored copy.

    Attributes:
        collection: Collection of the same database.
        field: Date or timestamp column of the collection.
    """

    collection: Name
    field: Name


class CollectionMeta(Rule):
    """Settings of one collection. They override the settings of its database.

    Attributes:
        title: Display name of the collection in each language; default: its name in the data map.
        field_titles: Display names of fields in each language, by name of the field; default: the
            name of the field. A key inside a JSON column is written with dots.
        schema_name: PostgreSQL schema of the table.
        table: Name of the table in PostgreSQL, if it differs from the name of the collection.
        data_class: Confidentiality class of the data, as the company names it.
        department: Department that is responsible for the data.
        owner: Person or role that is responsible for the data.
    """

    title: Texts | None = None
    field_titles: Mapping[Name, Texts] = {}
    schema_name: Annotated[Name | None, Field(alias="schema")] = None
    table: Name | None = None
    data_class: Annotated[Text | None, Field(alias="class")] = None
    department: Text | None = None
    owner: Text | None = None


class DatabaseMeta(Rule):
    """ParcelSeal's own keys in the data map of a database.

    Attributes:
        title: Display name of the database in each language; default: the `name` of the Dataset.
        connection: Id of the Airflow connection to the database.
        schema_name: PostgreSQL schema of the collections for which ``collections`` states no
            schema.
        site: Site of the primary server. A backup store does not count as separate (clause 4.2) if
            the store is at the same site or states no site.
        owner: Person or role that is responsible for the data.
        department: Department that is responsible for the data.
        data_class: Confidentiality class, as the company names it, of the collections for which
            ``collections`` states no class.
        rto_minutes: Recovery time objective in minutes; default: the value in backup.yaml.
        rpo_hours: Recovery point objective in hours; default: the value in backup.yaml.
        newest: Columns with the time of a record. In a restored copy, their greatest value shows
            how recent the data is.
        collections: Settings of single collections, by name.
        unconfirmed: Fields whose data categories ``config map`` guessed and no person has confirmed
            yet, by collection. A key inside a JSON column is written with dots, for example
            ``payload.phone``.
    """

    title: Texts | None = None
    connection: Text = "customer_db"
    schema_name: Annotated[Name, Field(alias="schema")] = "public"
    site: Text | None = None
    owner: Text | None = None
    department: Text | None = None
    data_class: Annotated[Text | None, Field(alias="class")] = None
    rto_minutes: Positive | None = None
    rpo_hours: Positive | None = None
    newest: tuple[NewestRecordField, ...] = ()
    collections: Mapping[str, CollectionMeta] = {}
    unconfirmed: Mapping[str, tuple[Name, ...]] = {}


class Reference(Rule):
    """A reference from one field to another field, as stated in the data map.

    Attributes:
        database: name of the other field's database. The pack may have no data map for it.
        collection: collection of the other field; empty if the pack has no data map for `database`.
        field: name of the other field. If the pack has no data map for `database`, it is
            ``collection.field`` as written in the data map that states the reference.
        direction: With ``to``, Fides uses the value of this field to find records by the other
            field. With ``from``, it uses the value of the other field to find records by this
            field. Either field may be the foreign key. None if the data map does not state the
            direction.
    """

    database: str
    collection: str
    field: str
    direction: Literal["from", "to"] | None = None


class MappedField(Rule):
    """A column of a mapped table, or a key inside a JSON column.

    Attributes:
        name: name of the column or key.
        categories: fideslang data categories, including those of the field's collection and
            database.
        uses: fideslang data uses, including those of the field's collection and database.
        subjects: fideslang data subjects of the field. If the field has none, the data subjects of
            its collection are used; if the collection has none, those of its database.
        is_confirmed: whether a person has confirmed the data categories.
        primary_key: whether the column belongs to the primary key.
        data_type: fideslang data type; None if the data map does not state it.
        identity: type of identity in the field, such as ``email``; None if the data map does not
            state it.
        references: references to and from other fields.
        fields: keys inside a JSON column, by name.
        titles: language -> display name of the field; None if the data map states none.
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
    titles: Texts | None = None

    @property
    def title(self) -> Message:
        """Return the display name of the field, or its name if the data map states none."""
        return _title(self.name, self.titles)

    @property
    def is_personal(self) -> bool:
        """Return whether the field contains personal data.

        This is the case if one of its data categories is ``user`` or is below ``user`` in the
        taxonomy.
        """
        return any(
            category == "user" or category.startswith("user.") for category in self.categories
        )


class MappedCollection(Rule):
    """A table of a mapped database.

    Attributes:
        name: name of the collection in the data map.
        schema_name: PostgreSQL schema of the table.
        table: name of the table in PostgreSQL.
        data_class: confidentiality class of the data, as the company names it; None if the data is
            not classified.
        department: department that is responsible for the data.
        owner: person or role that is responsible for the data.
        description: description in the data map.
        fields: columns by name, in the order of the data map.
        titles: language -> display name of the collection; None if the data map states none.
    """

    name: str
    schema_name: str
    table: str
    data_class: str | None = None
    department: str | None = None
    owner: str | None = None
    description: str | None = None
    fields: Mapping[str, MappedField]
    titles: Texts | None = None

    @property
    def title(self) -> Message:
        """Return the display name of the collection, or its name if the data map states none."""
        return _title(self.name, self.titles)

    def field_title(self, name: str) -> Message:
        """Return the display name of a column, or its name if the data map states none.

        Args:
            name: name of the column. A name that is not mapped is returned unchanged.
        """
        field = self.fields.get(name)
        return field.title if field else verbatim(name)

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        """Return the personal fields whose data categories are not confirmed.

        A key inside a JSON column is written with dots, for example ``payload.phone``.
        """
        return tuple(_unconfirmed(self.fields, ""))

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Return the columns of the primary key, in the order of the data map.

        The result is empty if the data map states no primary key.
        """
        return tuple(name for name, field in self.fields.items() if field.primary_key)

    def fields_about(self, subjects: Sequence[str]) -> dict[str, MappedField]:
        """Return the columns with personal data about certain data subjects, by column name.

        A personal column about other data subjects is left out, such as the name of the clerk who
        entered a customer's record. A personal column without a data subject in the data map is
        always included.

        Args:
            subjects: fideslang data subjects; empty for all data subjects.
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
        name: fides_key of the Dataset, which is also the value of the option ``--database``.
        title: display name of the database.
        connection: id of the Airflow connection to the database.
        schema_name: PostgreSQL schema of collections for which the data map states no schema.
        site: site of the primary server; None if the data map does not state it.
        owner: person or role that is responsible for the database.
        department: department that is responsible for the database.
        data_class: confidentiality class of collections for which the data map states no class.
        rto: recovery time objective.
        rpo: recovery point objective.
        newest: columns with the time of a record. In a restored copy, their greatest value shows
            how recent the data is.
    """

    name: str
    title: Message
    connection: str
    schema_name: str
    site: str | None = None
    owner: str | None = None
    department: str | None = None
    data_class: str | None = None
    rto: timedelta
    rpo: timedelta
    newest: tuple[NewestRecordField, ...] = ()


class MappedDatabase(DatabaseFacts):
    """A database that a data map of the pack describes.

    Attributes:
        collections: collections by name, in the order of the data map. If the pack is compiled,
            they are read at first use.
    """

    collections: Mapping[str, MappedCollection]

    def title_of(self, name: str) -> Message:
        """Return the display name of a collection.

        Args:
            name: name of the collection. If the data map has problems or does not contain the
                collection, this name is returned.
        """
        collection = None if self.is_faulty else self.collections.get(name)
        return collection.title if collection else verbatim(name)

    def collection_title(self, name: str) -> Message:
        """Return the titles of a collection and of the database: "Customers (Courier operations)".

        Args:
            name: name of the collection, as in `title_of`.
        """
        return _("{collection} ({database})", collection=self.title_of(name), database=self.title)

    @property
    def table_titles(self) -> dict[str, Message]:
        """The titles of collections and of the database, for findings about tables.

        The keys consist of the database, the PostgreSQL schema and the table, separated by dots.
        """
        collections = () if self.is_faulty else self.collections.values()
        return {
            f"{self.name}.{collection.schema_name}.{collection.table}": self.collection_title(
                collection.name
            )
            for collection in collections
        }

    @property
    def is_faulty(self) -> bool:
        """Return whether the data map of this database has problems.

        No workflow may use a database with a faulty data map.
        """
        return isinstance(self.collections, FaultyCollections)


_Item = TypeVar("_Item")


class LazyMapping(Mapping[str, _Item]):
    """A mapping with fixed names. Each access to an item calls a function that reads the item.

    Args:
        names: names of the items, in order.
        read: function that takes the name of an item and returns the item.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], _Item]) -> None:
        self._names = dict.fromkeys(names)
        self._read_item = read

    def __getitem__(self, name: str) -> _Item:
        if name not in self._names:
            raise KeyError(name)
        return self._read_item(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class FaultyCollections(LazyMapping[MappedCollection]):
    """The collections of a faulty data map, of which only the names are available.

    Access to a collection raises PackError.

    Args:
        names: names of the collections, as far as they could be read from the data map.
        folder: folder of the pack.
        problems: problems of the data map.
    """

    def __init__(self, names: Sequence[str], folder: Path, problems: Sequence[PackProblem]) -> None:
        super().__init__(names, self._refuse)
        self._error = PackError(folder, problems)

    def _refuse(self, _name: str) -> MappedCollection:
        raise self._error


def _title(name: str, titles: Texts | None) -> Message:
    return translated_message(titles) if titles else verbatim(name)


def _unconfirmed(fields: Mapping[str, MappedField], prefix: str) -> Iterator[str]:
    for name, field in fields.items():
        if field.is_personal and not field.is_confirmed:
            yield prefix + name
        yield from _unconfirmed(field.fields, f"{prefix}{name}.")
