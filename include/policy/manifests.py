"""Read the data maps of a pack: validate fideslang manifests, and convert them to databases.

The checks read the unvalidated content of the files, so that a first problem does not hide a second
one. They cover fideslang's models, its taxonomy (including the categories that the pack adds),
names, references between collections, and ParcelSeal's keys under ``meta``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from include.policy.datamap import META_KEY, DatabaseFacts, DatabaseMeta, MappedDatabase
from include.policy.document import Document, Loc, drop_faults
from include.policy.mapping import Inventory, database_facts, mapped_database, table_of
from include.policy.problems import PackProblem
from include.policy.rules import Targets

if TYPE_CHECKING:
    from fideslang.models import Dataset, FidesModel

# Evidence and backups use the name as a folder, so that it must not contain a path.
_NAME_START = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_NAME_REST = _NAME_START | frozenset(".-")
_FIDES_KEY = re.compile(rb"""^[ \t-]*fides_key:[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)

_TAXONOMY_KEYS = {
    "data_categories": "data_category",
    "data_uses": "data_use",
    "data_purposes": "data_use",
    "data_subjects": "data_subject",
}


@dataclass
class DataMap:
    """The content of the files in ``datamap/``.

    Attributes:
        databases: databases in files without problems, by name.
        faulty: databases in files with problems, by file. Databases without a valid name are left
            out.
        inventory: names of databases, collections and fields, including those in faulty files.
        problems: problems that the author of the pack has to correct.
        remarks: remarks about keys that ParcelSeal or fideslang ignores, references that cannot be
            checked, and unconfirmed data categories.
    """

    databases: dict[str, MappedDatabase] = field(default_factory=dict)
    faulty: dict[str, list[DatabaseFacts]] = field(default_factory=dict)
    inventory: Inventory = field(default_factory=Inventory)
    problems: list[PackProblem] = field(default_factory=list)
    remarks: list[PackProblem] = field(default_factory=list)


@dataclass
class _DatasetEntry:
    """A fideslang Dataset in a file of ``datamap/``.

    Attributes:
        document: content of the file.
        base: path of the Dataset in the file.
        raw: unvalidated content of the Dataset.
        name: fides_key of the Dataset; empty if it is missing.
        dataset: the Dataset as fideslang read it; None if it is not valid.
        meta: ParcelSeal's valid keys in the Dataset.
    """

    document: Document
    base: Loc
    raw: dict[str, Any]
    name: str
    dataset: Dataset | None = None
    meta: DatabaseMeta = field(default_factory=DatabaseMeta)


def read_datamap(
    documents: Sequence[Document], targets: Targets, unreadable: Mapping[str, bytes] = {}
) -> DataMap:
    """Validate the files of ``datamap/`` together, and convert them to mapped databases.

    Args:
        documents: content of the files. Each is a single fideslang Dataset or a Fides manifest with
            a ``dataset:`` list.
        targets: recovery targets of databases for which the data map states none.
        unreadable: content of files that could not be parsed, by file.
    """
    datamap = DataMap()
    for file, content in unreadable.items():
        names = [name for name in _database_names_in(content) if _is_valid_name(name)]
        meta = DatabaseMeta()
        datamap.faulty[file] = [database_facts(name, name, meta, targets) for name in names]
        datamap.inventory.unreadable += names
    taxonomy = {kind: set(keys) for kind, keys in _default_taxonomy().items()}
    entries: list[_DatasetEntry] = []
    for document in documents:
        entries += _entries(document, datamap, taxonomy)
    datamap.inventory.categories = frozenset(taxonomy["data_category"])
    entries_by_name: dict[str, _DatasetEntry] = {}
    for entry in entries:
        _check_name(entry, entries_by_name, datamap)
        datamap.inventory.add(entry.name, entry.raw)
    for entry in entries:
        _validate_with_fideslang(entry, datamap)
        _check_taxonomy(entry, taxonomy, datamap)
        _check_unique_names(entry, datamap)
        _check_references(entry, datamap)
        _check_meta(entry, datamap)
    faulty = {problem.file for problem in datamap.problems}
    faulty |= {document.file for document in documents if document.faults}
    for entry in entries:
        if entry.document.file not in faulty:
            assert entry.dataset is not None
            datamap.databases[entry.name] = mapped_database(
                entry.dataset, entry.raw, entry.meta, targets, datamap.inventory
            )
        elif _is_valid_name(entry.name):
            facts = database_facts(entry.name, entry.name, entry.meta, targets)
            datamap.faulty.setdefault(entry.document.file, []).append(facts)
    return datamap


def _database_names_in(content: bytes) -> list[str]:
    """Return the database names (``fides_key``) in a file, even if the file is not valid YAML."""
    return [match.decode("utf-8", "replace") for match in _FIDES_KEY.findall(content)]


def _is_valid_name(name: str) -> bool:
    return bool(name) and name[0] in _NAME_START and _NAME_REST.issuperset(name)


@lru_cache
def _default_taxonomy() -> dict[str, frozenset[str]]:
    # The import takes 0.3 s, and only loading a pack needs it.
    from fideslang.default_taxonomy import DEFAULT_TAXONOMY

    return {
        kind: frozenset(item.fides_key for item in getattr(DEFAULT_TAXONOMY, kind) or ())
        for kind in set(_TAXONOMY_KEYS.values())
    }


def _entries(
    document: Document, datamap: DataMap, taxonomy: dict[str, set[str]]
) -> Iterator[_DatasetEntry]:
    """Yield the Datasets of a file, and add the taxonomy entries of the file to ``taxonomy``.

    Args:
        document: content of the file.
        datamap: receives the problems and remarks.
        taxonomy: type of entry, such as ``data_category`` -> known keys.
    """
    from fideslang import model_list

    data = document.data
    if isinstance(data, dict) and ("fides_key" in data or "collections" in data):
        yield _DatasetEntry(document, (), data, str(data.get("fides_key", "")))
        return
    if not isinstance(data, dict) or not any(key in model_list for key in data):
        message = (
            "is not a data map: it is neither a fideslang Dataset (fides_key, collections) "
            "nor a Fides manifest (dataset: [...])"
        )
        datamap.problems.append(document.problem((), message))
        return
    for key, items in data.items():
        if key not in model_list:
            datamap.problems.append(
                document.problem((key,), "a Fides manifest has no such resource")
            )
        elif not isinstance(items, list):
            datamap.problems.append(document.problem((key,), "should be a list"))
        elif key == "dataset":
            for at, item in enumerate(items):
                if isinstance(item, dict):
                    name = str(item.get("fides_key", ""))
                    yield _DatasetEntry(document, (key, at), item, name)
                else:
                    datamap.problems.append(document.problem((key, at), "should be a mapping"))
        elif key in taxonomy:
            taxonomy[key] |= set(_own_taxonomy(document, key, items, datamap))
        else:
            datamap.remarks.append(document.problem((key,), "is not used by ParcelSeal"))


def _own_taxonomy(
    document: Document, kind: str, items: list[Any], datamap: DataMap
) -> Iterator[str]:
    from fideslang import models

    kinds: dict[str, type[FidesModel]] = {
        "data_category": models.DataCategory,
        "data_use": models.DataUse,
        "data_subject": models.DataSubject,
    }
    for at, item in enumerate(items):
        try:
            yield kinds[kind].model_validate(item).fides_key
        except ValidationError as error:
            datamap.problems += document.problems(error, (kind, at))


def _check_name(
    entry: _DatasetEntry, entries_by_name: dict[str, _DatasetEntry], datamap: DataMap
) -> None:
    name, loc = entry.name, (*entry.base, "fides_key")
    if not name:
        return  # fideslang reports a missing name
    if not _is_valid_name(name):
        message = (
            "names a database and its folders: use letters, digits, - . _ and begin with a letter, "
            "digit or _"
        )
        datamap.problems.append(entry.document.problem(loc, message))
    if name in entries_by_name:
        other = entries_by_name[name]
        line = other.document.lines[other.document.existing_path((*other.base, "fides_key"))]
        message = f"another data map has this name: {other.document.file}:{line}"
        datamap.problems.append(entry.document.problem(loc, message))
    entries_by_name.setdefault(name, entry)


def _validate_with_fideslang(entry: _DatasetEntry, datamap: DataMap) -> None:
    """Validate a Dataset with fideslang's models.

    Args:
        entry: the Dataset.
        datamap: receives the problems, and a remark for each key that fideslang ignores.
    """
    from fideslang import models

    # fideslang passes keys as arguments to its constructors, which already have a "self"
    if self_keys := [loc for _level, loc, raw in _elements(entry) if "self" in raw]:
        message = "fideslang does not allow a key with this name"
        datamap.problems += (entry.document.problem((*loc, "self"), message) for loc in self_keys)
        return
    try:
        entry.dataset = models.Dataset.model_validate(entry.raw)
    except ValidationError as error:
        datamap.problems += (
            problem
            for problem in entry.document.problems(error, entry.base)
            # _check_unique_names reports duplicates with their lines
            if "Duplicate entries found" not in problem.message
        )
    fideslang_keys = {
        0: {*models.Dataset.model_fields, "fidesops_meta"},
        1: {*models.DatasetCollection.model_fields, "fidesops_meta"},
        2: {*models.DatasetField.model_fields, "fidesops_meta"},
    }
    for level, loc, raw in _elements(entry):
        for key in raw:
            if key not in fideslang_keys[level]:
                message = "fideslang does not know this key and ignores it"
                datamap.remarks.append(entry.document.problem((*loc, key), message))


def _elements(entry: _DatasetEntry) -> Iterator[tuple[int, Loc, dict[str, Any]]]:
    """Yield a Dataset (level 0), its collections (level 1) and their fields (level 2).

    The keys inside a field also have level 2.

    Args:
        entry: the Dataset.

    Yields:
        Level, path in the file, and unvalidated content.
    """
    yield 0, entry.base, entry.raw
    for at, collection in _mappings(entry.raw.get("collections")):
        loc = (*entry.base, "collections", at)
        yield 1, loc, collection
        for field_loc, raw_field in _fields(collection, loc):
            yield 2, field_loc, raw_field


def _fields(raw: dict[str, Any], loc: Loc) -> Iterator[tuple[Loc, dict[str, Any]]]:
    for at, raw_field in _mappings(raw.get("fields")):
        field_loc = (*loc, "fields", at)
        yield field_loc, raw_field
        yield from _fields(raw_field, field_loc)


def _mappings(items: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    if isinstance(items, list):
        yield from ((at, item) for at, item in enumerate(items) if isinstance(item, dict))


def _check_taxonomy(entry: _DatasetEntry, taxonomy: dict[str, set[str]], datamap: DataMap) -> None:
    for _level, loc, raw in _elements(entry):
        for key, kind in _TAXONOMY_KEYS.items():
            values = raw.get(key)
            for at, value in enumerate(values if isinstance(values, list) else ()):
                if isinstance(value, str) and value not in taxonomy[kind]:
                    message = f"the taxonomy has no {kind} {value!r}"
                    datamap.problems.append(entry.document.problem((*loc, key, at), message))


def _check_unique_names(entry: _DatasetEntry, datamap: DataMap) -> None:
    """Check that names are not empty and that no name occurs twice in the same list.

    The check covers the collections of the Dataset, the fields of each collection, and the keys
    inside each field.
    """
    for level, loc, raw in _elements(entry):
        list_key = "collections" if level == 0 else "fields"
        first_lines: dict[str, int] = {}
        for at, item in _mappings(raw.get(list_key)):
            name, name_loc = item.get("name"), (*loc, list_key, at, "name")
            if name == "":
                datamap.problems.append(entry.document.problem(name_loc, "should not be empty"))
            elif isinstance(name, str) and name in first_lines:
                message = f"{name!r} occurs twice, first in line {first_lines[name]}"
                datamap.problems.append(entry.document.problem(name_loc, message))
            elif isinstance(name, str):
                first_lines[name] = entry.document.lines[entry.document.existing_path(name_loc)]


def _check_references(entry: _DatasetEntry, datamap: DataMap) -> None:
    for level, loc, raw in _elements(entry):
        if level < 2:
            continue
        for key in ("fides_meta", "fidesops_meta"):
            meta = raw.get(key)
            references = meta.get("references") if isinstance(meta, dict) else None
            for at, reference in _mappings(references):
                dataset, target = reference.get("dataset"), reference.get("field")
                if not isinstance(dataset, str) or not isinstance(target, str):
                    continue  # fideslang reports values of other types
                item_loc = (*loc, key, "references", at)
                if dataset not in datamap.inventory:
                    message = f"cannot be checked: the pack maps no database {dataset!r}"
                    datamap.remarks.append(entry.document.problem((*item_loc, "dataset"), message))
                elif reason := datamap.inventory.unresolved_reason(dataset, target):
                    datamap.problems.append(entry.document.problem((*item_loc, "field"), reason))


def _check_meta(entry: _DatasetEntry, datamap: DataMap) -> None:
    """Validate ParcelSeal's keys, and check that they name existing collections and fields."""
    meta = entry.raw.get("meta")
    own_keys = meta.get(META_KEY) if isinstance(meta, dict) else None
    base = (*entry.base, "meta", META_KEY)
    doubtful: set[str] = set()
    if own_keys is not None:
        try:
            # Strict validation accepts a list for a tuple only from JSON.
            entry.meta = DatabaseMeta.model_validate_json(json.dumps(own_keys), strict=True)
        except ValidationError as error:
            datamap.problems += entry.document.problems(error, base)
            entry.meta = _valid_table_keys(own_keys)
            doubtful = _collections_with_faulty_table(error, entry)
    if isinstance(own_keys, dict):
        _check_newest(entry, own_keys, base, datamap)
        _check_exceptions(entry, own_keys, base, datamap)
        _check_unconfirmed(entry, own_keys, base, datamap)
    _check_unique_tables(entry, doubtful, datamap)


def _valid_table_keys(own_keys: Any) -> DatabaseMeta:
    """Return the valid values of those ParcelSeal keys that state schemas and tables.

    Args:
        own_keys: unvalidated content of ParcelSeal's keys in a Dataset.
    """
    table_keys = ("schema", "collections")
    values = (
        {key: own_keys[key] for key in table_keys if key in own_keys}
        if isinstance(own_keys, dict)
        else {}
    )
    return drop_faults(TypeAdapter(DatabaseMeta), values, {}) or DatabaseMeta()


def _collections_with_faulty_table(error: ValidationError, entry: _DatasetEntry) -> set[str]:
    """Return the collections whose PostgreSQL table is unknown because of faulty keys.

    Args:
        error: error from the validation of ParcelSeal's keys.
        entry: the Dataset with these keys.
    """
    doubtful: set[str] = set()
    for details in error.errors(include_url=False, include_input=False):
        match details["loc"]:
            case () | ("schema",) | ("collections",):
                doubtful |= {str(raw.get("name")) for _at, raw in _collections(entry)}
            case ("collections", name, *_rest):
                doubtful.add(str(name))
    return doubtful


def _collections(entry: _DatasetEntry) -> Iterator[tuple[int, dict[str, Any]]]:
    return _mappings(entry.raw.get("collections"))


def _check_newest(
    entry: _DatasetEntry, own_keys: dict[str, Any], base: Loc, datamap: DataMap
) -> None:
    for at, clock in _mappings(own_keys.get("newest")):
        loc = (*base, "newest", at)
        collection, column = clock.get("collection"), clock.get("field")
        if not isinstance(collection, str) or not collection:
            continue  # _check_meta reports a faulty form
        if not datamap.inventory.has_collection(entry.name, collection):
            message = f"the database has no collection {collection!r}"
            datamap.problems.append(entry.document.problem((*loc, "collection"), message))
        elif (
            isinstance(column, str)
            and column
            and not datamap.inventory.has_column(entry.name, collection, column)
        ):
            message = f"collection {collection!r} has no field {column!r}"
            datamap.problems.append(entry.document.problem((*loc, "field"), message))


def _check_exceptions(
    entry: _DatasetEntry, own_keys: dict[str, Any], base: Loc, datamap: DataMap
) -> None:
    exceptions = own_keys.get("collections")
    for name, keys in exceptions.items() if isinstance(exceptions, dict) else ():
        if not datamap.inventory.has_collection(entry.name, name):
            message = "the database has no such collection"
            datamap.problems.append(entry.document.problem((*base, "collections", name), message))
            continue
        titles = keys.get("field_titles") if isinstance(keys, dict) else None
        for field_name in titles if isinstance(titles, dict) else ():
            if not datamap.inventory.has_field(entry.name, name, field_name):
                loc = (*base, "collections", name, "field_titles", field_name)
                message = f"collection {name!r} has no field {field_name!r}"
                datamap.problems.append(entry.document.problem(loc, message))


def _check_unconfirmed(
    entry: _DatasetEntry, own_keys: dict[str, Any], base: Loc, datamap: DataMap
) -> None:
    """Check that the fields under ``unconfirmed`` exist, and add a remark that lists these fields.

    No person has confirmed the data categories of these fields.

    Args:
        entry: the Dataset.
        own_keys: unvalidated content of ParcelSeal's keys in the Dataset.
        base: path of these keys in the file.
        datamap: receives the problems and remarks.
    """
    listed = own_keys.get("unconfirmed")
    for name, fields in listed.items() if isinstance(listed, dict) else ():
        loc = (*base, "unconfirmed", name)
        if not datamap.inventory.has_collection(entry.name, name):
            message = "the database has no such collection"
            datamap.problems.append(entry.document.problem(loc, message))
        elif isinstance(fields, list):
            named = [name for name in fields if isinstance(name, str)]
            for at, field_name in enumerate(named):
                if not datamap.inventory.has_field(entry.name, name, field_name):
                    message = f"collection {name!r} has no field {field_name!r}"
                    datamap.problems.append(entry.document.problem((*loc, at), message))
            if named:
                message = f"unconfirmed data categories of {', '.join(named)}"
                datamap.remarks.append(entry.document.problem(loc, message))


def _check_unique_tables(entry: _DatasetEntry, doubtful: set[str], datamap: DataMap) -> None:
    tables: dict[tuple[str, str], str] = {}
    for at, raw in _collections(entry):
        collection = raw.get("name")
        if not isinstance(collection, str) or not collection or collection in doubtful:
            continue
        table = table_of(collection, entry.meta)
        if tables.setdefault(table, collection) != collection:
            message = f"is the same table as collection {tables[table]!r}: {'.'.join(table)}"
            loc = (*entry.base, "collections", at, "name")
            datamap.problems.append(entry.document.problem(loc, message))
