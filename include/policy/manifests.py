"""Data maps: fideslang manifests checked as a whole and turned into mapped databases.

What a manifest says is checked on the plain document, so that one wrong key does not hide the
next: fideslang's own models, its taxonomy (with the pack's own categories), names, references
between collections, and our keys under ``meta``.
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
from include.policy.document import Document, Loc, without_faults
from include.policy.mapping import Inventory, database_facts, mapped_database, table_of
from include.policy.problems import PackProblem
from include.policy.rules import Targets

if TYPE_CHECKING:
    from fideslang.models import Dataset, FidesModel

# The name is a folder of evidence and of backups: no path may hide in it.
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
    """What the documents of ``datamap/`` say.

    Attributes:
        databases: by name, those of sound documents.
        faulty: names of the databases in other documents, by file; without those that are no name
            of a database.
        inventory: names of databases, collections and fields, of faulty documents too.
        problems: what has to be put right.
        remarks: what fideslang ignores or nobody can check.
    """

    databases: dict[str, MappedDatabase] = field(default_factory=dict)
    faulty: dict[str, list[DatabaseFacts]] = field(default_factory=dict)
    inventory: Inventory = field(default_factory=Inventory)
    problems: list[PackProblem] = field(default_factory=list)
    remarks: list[PackProblem] = field(default_factory=list)


@dataclass
class _Entry:
    """One Dataset of a document, raw and as far as it could be read."""

    document: Document
    base: Loc
    raw: dict[str, Any]
    name: str
    dataset: Dataset | None = None
    meta: DatabaseMeta = field(default_factory=DatabaseMeta)


def read_datamap(
    documents: Sequence[Document], targets: Targets, unreadable: Mapping[str, bytes] = {}
) -> DataMap:
    """Check the documents of ``datamap/`` together.

    Args:
        documents: fideslang Datasets, bare or as ``dataset:`` lists of Fides manifests.
        targets: recovery targets of databases that name none.
        unreadable: content of files that are no documents, by file.
    """
    datamap = DataMap()
    for file, content in unreadable.items():
        names = [name for name in _written_names(content) if _is_name(name)]
        meta = DatabaseMeta()
        datamap.faulty[file] = [database_facts(name, name, meta, targets) for name in names]
        datamap.inventory.unreadable += names
    taxonomy = {key: set(known) for key, known in _default_taxonomy().items()}
    entries: list[_Entry] = []
    for document in documents:
        entries += _entries(document, datamap, taxonomy)
    datamap.inventory.categories = frozenset(taxonomy["data_category"])
    seen: dict[str, _Entry] = {}
    for entry in entries:
        _check_name(entry, seen, datamap)
        datamap.inventory.add(entry.name, entry.raw)
    for entry in entries:
        _check_shape(entry, datamap)
        _check_taxonomy(entry, taxonomy, datamap)
        _check_names_once(entry, datamap)
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
        elif _is_name(entry.name):
            facts = database_facts(entry.name, entry.name, entry.meta, targets)
            datamap.faulty.setdefault(entry.document.file, []).append(facts)
    return datamap


def _written_names(content: bytes) -> list[str]:
    """Return the names of databases in a text that may be no YAML."""
    return [match.decode("utf-8", "replace") for match in _FIDES_KEY.findall(content)]


def _is_name(name: str) -> bool:
    return bool(name) and name[0] in _NAME_START and _NAME_REST.issuperset(name)


@lru_cache
def _default_taxonomy() -> dict[str, frozenset[str]]:
    from fideslang.default_taxonomy import DEFAULT_TAXONOMY  # 0.3 s that only loading needs

    return {
        kind: frozenset(one.fides_key for one in getattr(DEFAULT_TAXONOMY, kind) or ())
        for kind in set(_TAXONOMY_KEYS.values())
    }


def _entries(
    document: Document, datamap: DataMap, taxonomy: dict[str, set[str]]
) -> Iterator[_Entry]:
    """The Datasets of a document; its own taxonomy entries are added to ``taxonomy``."""
    from fideslang import model_list

    data = document.data
    if isinstance(data, dict) and ("fides_key" in data or "collections" in data):
        yield _Entry(document, (), data, str(data.get("fides_key", "")))
        return
    if not isinstance(data, dict) or not any(key in model_list for key in data):
        message = (
            "is no data map: neither a fideslang Dataset (fides_key, collections) "
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
                    yield _Entry(document, (key, at), item, name)
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


def _check_name(entry: _Entry, seen: dict[str, _Entry], datamap: DataMap) -> None:
    name, loc = entry.name, (*entry.base, "fides_key")
    if not name:
        return  # fideslang says so
    if not _is_name(name):
        message = (
            "names a database and its folders: use letters, digits, - . _ and begin with a letter, "
            "digit or _"
        )
        datamap.problems.append(entry.document.problem(loc, message))
    if name in seen:
        other = seen[name]
        line = other.document.lines[other.document.known((*other.base, "fides_key"))]
        message = f"another data map has this name: {other.document.file}:{line}"
        datamap.problems.append(entry.document.problem(loc, message))
    seen.setdefault(name, entry)


def _check_shape(entry: _Entry, datamap: DataMap) -> None:
    """Let fideslang judge; what it does not know and ignores becomes a remark."""
    from fideslang import models

    # keys become arguments of fideslang's constructors, where this one is taken
    if taken := [loc for _level, loc, raw in _parts(entry) if "self" in raw]:
        message = "fideslang cannot take a key of this name"
        datamap.problems += (entry.document.problem((*loc, "self"), message) for loc in taken)
        return
    try:
        entry.dataset = models.Dataset.model_validate(entry.raw)
    except ValidationError as error:
        datamap.problems += (
            one
            for one in entry.document.problems(error, entry.base)
            if "Duplicate entries found" not in one.message  # said below, with the line
        )
    known = {
        0: {*models.Dataset.model_fields, "fidesops_meta"},
        1: {*models.DatasetCollection.model_fields, "fidesops_meta"},
        2: {*models.DatasetField.model_fields, "fidesops_meta"},
    }
    for level, loc, raw in _parts(entry):
        for key in raw:
            if key not in known[level]:
                message = "fideslang does not know this key and ignores it"
                datamap.remarks.append(entry.document.problem((*loc, key), message))


def _parts(entry: _Entry) -> Iterator[tuple[int, Loc, dict[str, Any]]]:
    """The Dataset (level 0), its collections (1) and all fields (2), with their paths."""
    yield 0, entry.base, entry.raw
    for at, collection in _mappings(entry.raw.get("collections")):
        loc = (*entry.base, "collections", at)
        yield 1, loc, collection
        for field_loc, one in _fields(collection, loc):
            yield 2, field_loc, one


def _fields(raw: dict[str, Any], loc: Loc) -> Iterator[tuple[Loc, dict[str, Any]]]:
    for at, one in _mappings(raw.get("fields")):
        here = (*loc, "fields", at)
        yield here, one
        yield from _fields(one, here)


def _mappings(items: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    if isinstance(items, list):
        yield from ((at, one) for at, one in enumerate(items) if isinstance(one, dict))


def _check_taxonomy(entry: _Entry, taxonomy: dict[str, set[str]], datamap: DataMap) -> None:
    for _level, loc, raw in _parts(entry):
        for key, kind in _TAXONOMY_KEYS.items():
            values = raw.get(key)
            for at, value in enumerate(values if isinstance(values, list) else ()):
                if isinstance(value, str) and value not in taxonomy[kind]:
                    message = f"the taxonomy has no {kind} {value!r}"
                    datamap.problems.append(entry.document.problem((*loc, key, at), message))


def _check_names_once(entry: _Entry, datamap: DataMap) -> None:
    """Names of siblings differ and are not empty."""
    for level, loc, raw in _parts(entry):
        below = "collections" if level == 0 else "fields"
        first: dict[str, int] = {}
        for at, one in _mappings(raw.get(below)):
            name, here = one.get("name"), (*loc, below, at, "name")
            if name == "":
                datamap.problems.append(entry.document.problem(here, "should not be empty"))
            elif isinstance(name, str) and name in first:
                message = f"{name!r} stands twice, first in line {first[name]}"
                datamap.problems.append(entry.document.problem(here, message))
            elif isinstance(name, str):
                first[name] = entry.document.lines[entry.document.known(here)]


def _check_references(entry: _Entry, datamap: DataMap) -> None:
    for level, loc, raw in _parts(entry):
        if level < 2:
            continue
        for key in ("fides_meta", "fidesops_meta"):
            meta = raw.get(key)
            for at, one in _mappings(meta.get("references") if isinstance(meta, dict) else None):
                dataset, target = one.get("dataset"), one.get("field")
                if not isinstance(dataset, str) or not isinstance(target, str):
                    continue  # fideslang says so
                here = (*loc, key, "references", at)
                if dataset not in datamap.inventory:
                    message = f"cannot be checked: the pack maps no database {dataset!r}"
                    datamap.remarks.append(entry.document.problem((*here, "dataset"), message))
                elif why_not := datamap.inventory.why_not(dataset, target):
                    datamap.problems.append(entry.document.problem((*here, "field"), why_not))


def _check_meta(entry: _Entry, datamap: DataMap) -> None:
    """Our own keys: their form, and that what they name is there."""
    meta = entry.raw.get("meta")
    ours = meta.get(META_KEY) if isinstance(meta, dict) else None
    base = (*entry.base, "meta", META_KEY)
    doubtful: set[str] = set()
    if ours is not None:
        try:
            # as JSON: strict about types, and a list is a tuple
            entry.meta = DatabaseMeta.model_validate_json(json.dumps(ours), strict=True)
        except ValidationError as error:
            datamap.problems += entry.document.problems(error, base)
            entry.meta = _where_tables_are(ours)
            doubtful = _doubtful_tables(error, entry)
    if isinstance(ours, dict):
        _check_newest(entry, ours, base, datamap)
        _check_exceptions(entry, ours, base, datamap)
        _check_unconfirmed(entry, ours, base, datamap)
    _check_tables_once(entry, doubtful, datamap)


def _where_tables_are(ours: Any) -> DatabaseMeta:
    """What faulty keys of ours say of schemas and tables, as far as it is sound."""
    wanted = ("schema", "collections")
    said = {key: ours[key] for key in wanted if key in ours} if isinstance(ours, dict) else {}
    return without_faults(TypeAdapter(DatabaseMeta), said, {}) or DatabaseMeta()


def _doubtful_tables(error: ValidationError, entry: _Entry) -> set[str]:
    """Collections whose table is unknown until the faults are corrected."""
    doubtful: set[str] = set()
    for one in error.errors(include_url=False, include_input=False):
        match one["loc"]:
            case () | ("schema",) | ("collections",):
                doubtful |= {str(raw.get("name")) for _at, raw in _collections(entry)}
            case ("collections", name, *_rest):
                doubtful.add(str(name))
    return doubtful


def _collections(entry: _Entry) -> Iterator[tuple[int, dict[str, Any]]]:
    return _mappings(entry.raw.get("collections"))


def _check_newest(entry: _Entry, ours: dict[str, Any], base: Loc, datamap: DataMap) -> None:
    for at, clock in _mappings(ours.get("newest")):
        loc = (*base, "newest", at)
        collection, column = clock.get("collection"), clock.get("field")
        if not isinstance(collection, str) or not collection:
            continue  # a fault of form, said above
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


def _check_exceptions(entry: _Entry, ours: dict[str, Any], base: Loc, datamap: DataMap) -> None:
    exceptions = ours.get("collections")
    for name in exceptions if isinstance(exceptions, dict) else ():
        if not datamap.inventory.has_collection(entry.name, name):
            message = "the database has no such collection"
            datamap.problems.append(entry.document.problem((*base, "collections", name), message))


def _check_unconfirmed(entry: _Entry, ours: dict[str, Any], base: Loc, datamap: DataMap) -> None:
    """Check that the unconfirmed fields exist, and add a remark for each collection."""
    listed = ours.get("unconfirmed")
    for name, fields in listed.items() if isinstance(listed, dict) else ():
        loc = (*base, "unconfirmed", name)
        if not datamap.inventory.has_collection(entry.name, name):
            message = "the database has no such collection"
            datamap.problems.append(entry.document.problem(loc, message))
        elif isinstance(fields, list):
            named = [one for one in fields if isinstance(one, str)]
            for at, field_name in enumerate(named):
                if not datamap.inventory.has_field(entry.name, name, field_name):
                    message = f"collection {name!r} has no field {field_name!r}"
                    datamap.problems.append(entry.document.problem((*loc, at), message))
            if named:
                message = f"unconfirmed data categories of {', '.join(named)}"
                datamap.remarks.append(entry.document.problem(loc, message))


def _check_tables_once(entry: _Entry, doubtful: set[str], datamap: DataMap) -> None:
    tables: dict[tuple[str, str], str] = {}
    for at, one in _collections(entry):
        collection = one.get("name")
        if not isinstance(collection, str) or not collection or collection in doubtful:
            continue
        table = table_of(collection, entry.meta)
        if tables.setdefault(table, collection) != collection:
            message = f"is the same table as collection {tables[table]!r}: {'.'.join(table)}"
            loc = (*entry.base, "collections", at, "name")
            datamap.problems.append(entry.document.problem(loc, message))
