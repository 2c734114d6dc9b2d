"""Compile a policy pack into one file, so that a process reads only the parts that it needs.

Reading 300 data maps takes 13 seconds. A compiled pack is a ZIP file. Its index contains the
databases without their collections, and the content of the other files except suites and
retention.yaml. The collections, retention rules and suites of each database are separate ZIP
members, which are read at first use.

The name of the ZIP file is a digest of the pack's files and of ParcelSeal's code. If the pack or
the code changes, a new file is written. The file begins with the digest of its content, so a
damaged file is detected and written again. The content is JSON and is validated with the models
that the loader uses. Compiled packs are stored only in a folder that no other user can access.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue, TypeAdapter

from include.policy.company import Company
from include.policy.datamap import (
    DatabaseFacts,
    FaultyCollections,
    LazyMapping,
    MappedCollection,
    MappedDatabase,
)
from include.policy.document import DocumentError
from include.policy.expectations import Suite
from include.policy.files import file_digest, yaml_names
from include.policy.intake import IntakeRule
from include.policy.loader import RETENTION, PackContent, SectionsOf, load_pack, read_pack
from include.policy.model import CompiledSections, PackFile, PolicyPack, RulesByDatabase
from include.policy.problems import PackProblem
from include.policy.purposes import Purpose, add_over_collection_checks
from include.policy.retention import Disposition, RetentionRule
from include.policy.rules import (
    BackupRules,
    Calendar,
    Control,
    EvidenceRules,
    FindingRules,
    NotificationRules,
    Operations,
    Role,
    Rule,
)

FORMAT = 2
MOST_BYTES = 32 << 20  # size of a compiled pack; 300 data maps of 71 tables take half a MiB
MOST_PACKS = 3  # maximum number of compiled packs in the folder
_SUFFIX = ".pack"
_CODE = Path(__file__).resolve().parent.parent
_log = logging.getLogger(__name__)

_FACTS = tuple(DatabaseFacts.model_fields)
_COLLECTIONS: TypeAdapter[Mapping[str, MappedCollection]] = TypeAdapter(
    Mapping[str, MappedCollection]
)

_Item = TypeVar("_Item")


class _Index(Rule):
    """The part of a compiled pack that every process reads.

    Attributes:
        files: files of the pack, sorted by path.
        databases: the databases; their collections are left out.
        collections: names of the collections of each database, in the order of ``databases``.
        faults: problems of faulty data maps, by name of the database.
        content: file name -> content of the file, except for data maps, suites and retention.yaml.
        sections: for each pack file that only one workflow reads: file name -> ids of the
            connections that the file names.
        retention: for each rule in retention.yaml, the name of its database, in the order of the
            rules.
        suites: for each suite, the name of its database, in the order of the suites.
        remarks: remarks about the pack, which are not problems.
    """

    files: tuple[PackFile, ...]
    databases: tuple[DatabaseFacts, ...]
    collections: tuple[tuple[str, ...], ...]
    faults: Mapping[str, tuple[PackProblem, ...]] = {}
    content: Mapping[str, JsonValue]
    sections: Mapping[str, Sequence[str]]
    retention: tuple[str, ...]
    suites: tuple[str, ...]
    remarks: tuple[PackProblem, ...]


class _Archive:
    """The ZIP members of a compiled pack.

    The whole content is in memory, so the ZIP file may be deleted while the pack is used.
    """

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))

    def read(self, member: str) -> bytes:
        return self._zip.read(member)

    def collection_reader(self, member: str) -> Callable[[str], MappedCollection]:
        """Return a function that takes the name of a collection and returns the collection.

        The first call of the returned function reads all collections of the database.

        Args:
            member: ZIP member with the collections of the database.
        """
        collections = cache(lambda: _COLLECTIONS.validate_json(self.read(member)))
        return lambda name: collections()[name]

    def items(self, member: str, adapter: TypeAdapter[_Item]) -> tuple[_Item, ...]:
        """Return the items of the list in a ZIP member, validated with a pydantic type adapter."""
        return tuple(_validate(data, adapter) for data in json.loads(self.read(member)))


def load_compiled_pack(folder: Path, sections: SectionsOf, cache_folder: Path) -> PolicyPack:
    """Read a policy pack from its compiled file. If no current file exists, compile the pack.

    If the cache folder cannot be used, the pack is read from its YAML files. The returned pack may
    contain databases with faulty data maps, see `PolicyPack.faults`.

    Args:
        folder: absolute path of the pack.
        sections: function that returns the declarations of those pack files that only a single
            workflow reads. It is called only if the pack has to be compiled.
        cache_folder: folder of the compiled packs; created if it is missing.

    Raises:
        PackError: the pack has problems, as in ``read_pack``.
    """
    try:
        digests = {name: file_digest(folder / name) for name in yaml_names(folder)}
    except (OSError, DocumentError):
        return load_pack(folder, sections())  # raises an error that lists the problems
    path = cache_folder / f"{_key(digests)}{_SUFFIX}"
    try:
        _create_private_folder(cache_folder)
        content = _read_stored(path)
        if content is None:
            with _lock(cache_folder):
                content = _read_stored(path) or _compile(folder, sections, digests, path)
    except OSError as error:
        _log.warning("The policy pack is not compiled: %s", error)
        return read_pack(folder, sections()).pack
    return _unpack(content, folder, sections)


def _key(digests: Mapping[str, str]) -> str:
    lines = [FORMAT, _code_digest(), *sorted(digests.items())]
    return sha256(json.dumps(lines).encode()).hexdigest()


@cache
def _code_digest() -> str:
    """Return a digest that changes whenever ParcelSeal's code, its shipped files or Python change.

    The digest covers names, sizes and modification times of the files, and the versions of Python,
    pydantic and fideslang.
    """
    lines: list[object] = [sys.version, *(version(name) for name in ("pydantic", "fideslang"))]
    for at, folders, names in os.walk(_CODE):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".py", ".yaml")):
                status = Path(at, name).stat()
                lines.append((at[len(str(_CODE)) :], name, status.st_size, status.st_mtime_ns))
    return sha256(json.dumps(lines).encode()).hexdigest()


def _create_private_folder(folder: Path) -> None:
    """Create the folder of compiled packs, with access for the current user only.

    Raises:
        OSError: the folder cannot be created, or another user has access to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} should be a folder of this user with mode 700")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a file lock during a ``with`` block. Only one process at a time compiles a pack.

    The kernel releases the lock if the process is killed.

    Args:
        folder: folder of the compiled packs, which contains the lock file.
    """
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _read_stored(path: Path) -> bytes | None:
    """Return the content of a compiled pack's file, or None if the file is missing or damaged."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = raw[:32], raw[32:]
    return content if sha256(content).digest() == digest else None


def _compile(folder: Path, sections: SectionsOf, digests: Mapping[str, str], path: Path) -> bytes:
    """Compile a pack, store it and return its content.

    The compiled pack is not stored if it is larger than 32 MiB, or if a file of the pack changed
    after the digests were calculated.

    Args:
        folder: folder of the pack.
        sections: function that returns the declarations of those pack files that only a single
            workflow reads.
        digests: path in the pack -> digest of the file.
        path: file in which the compiled pack is stored.
    """
    loaded = read_pack(folder, sections())
    content = _pack(loaded)
    read_digests = {file.path: file.sha256 for file in loaded.pack.files if not file.shipped}
    if read_digests != digests:
        _log.warning("The policy pack changed while it was compiled; its next use compiles it.")
    elif len(content) > MOST_BYTES:
        _log.warning(
            "The compiled policy pack has more than %d MiB and is not kept: each use compiles it.",
            MOST_BYTES >> 20,
        )
    else:
        _store(content, path)
    return content


def _store(content: bytes, path: Path) -> None:
    """Write a compiled pack atomically, and delete older packs from the folder.

    The 3 newest packs are kept. Incomplete files that killed processes left are deleted.

    Args:
        content: content of the compiled pack.
        path: file to which the content is written.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as stream:
        stream.write(sha256(content).digest() + content)
    Path(stream.name).replace(path)
    packs = sorted(path.parent.glob(f"*{_SUFFIX}"), key=lambda pack: pack.stat().st_mtime)
    for old in [*packs[:-MOST_PACKS], *path.parent.glob("*.part")]:
        old.unlink(missing_ok=True)


def _pack(loaded: PackContent) -> bytes:
    """Return the content of the compiled file for a loaded pack."""
    pack = loaded.pack
    content = dict(loaded.files)
    rules = content.pop(RETENTION, [])
    owners = [pack.database_name_of(rule.collection, rule.database) for rule in pack.retention]
    index = _Index(
        files=pack.files,
        databases=tuple(
            DatabaseFacts.model_construct(**{name: getattr(database, name) for name in _FACTS})
            for database in pack.databases.values()
        ),
        collections=tuple(tuple(database.collections) for database in pack.databases.values()),
        faults=pack.faults,
        content=content,
        sections={file: rules.connections for file, rules in pack.sections.items()},
        retention=tuple(owners),
        suites=tuple(suite.database or "" for suite in pack.suites),
        remarks=pack.remarks,
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index", index.model_dump_json(exclude_defaults=True))
        for number, (name, database) in enumerate(pack.databases.items()):
            if not database.is_faulty:
                collections = _COLLECTIONS.dump_json(database.collections, exclude_defaults=True)
                archive.writestr(f"{number}/collections", collections)
            own_rules = [rule for rule, owner in zip(rules, owners, strict=True) if owner == name]
            archive.writestr(f"{number}/retention", json.dumps(own_rules))
            suites = [suite for owner, suite in loaded.suites if owner == name]
            archive.writestr(f"{number}/suites", json.dumps(suites))
    return stream.getvalue()


def _unpack(content: bytes, folder: Path, sections: SectionsOf) -> PolicyPack:
    """Return the policy pack that a compiled file contains.

    The collections, retention rules and suites of a database are read when they are first used.

    Args:
        content: content of the compiled file.
        folder: folder of the pack.
        sections: function that returns the declarations of those pack files that only a single
            workflow reads.
    """
    archive = _Archive(content)
    index = _Index.model_validate_json(archive.read("index"))
    databases: dict[str, MappedDatabase] = {}
    members: dict[str, int] = {}
    for number, (facts, names) in enumerate(zip(index.databases, index.collections, strict=True)):
        members[facts.name] = number
        collections: Mapping[str, MappedCollection]
        if problems := index.faults.get(facts.name):
            collections = FaultyCollections(names, folder, problems)
        else:
            collections = LazyMapping(names, archive.collection_reader(f"{number}/collections"))
        databases[facts.name] = MappedDatabase.model_construct(
            **{name: getattr(facts, name) for name in _FACTS}, collections=collections
        )

    def section(name: str, model: type[_Item]) -> _Item:
        return _validate(index.content.get(name, {}), TypeAdapter(model))

    def items(name: str, model: type[_Item]) -> tuple[_Item, ...]:
        data = index.content.get(name, [])
        assert isinstance(data, list)
        return tuple(_validate(item, TypeAdapter(model)) for item in data)

    purposes = items("purposes.yaml", Purpose)

    def retention_of(database: str) -> tuple[RetentionRule, ...]:
        rules: TypeAdapter[RetentionRule] = TypeAdapter(RetentionRule)
        return archive.items(f"{members[database]}/retention", rules)

    def suites_of(database: str) -> tuple[Suite, ...]:
        stored = archive.items(f"{members[database]}/suites", TypeAdapter(Suite))
        suites = [suite.model_copy(update={"database": database}) for suite in stored]
        sound = {} if database in index.faults else {database: databases[database]}
        return add_over_collection_checks(suites, purposes, sound)

    return PolicyPack.model_construct(
        folder=folder,
        files=index.files,
        databases=databases,
        faults=index.faults,
        controls=items("controls.yaml", Control),
        backup=section("backup.yaml", BackupRules),
        evidence=section("evidence.yaml", EvidenceRules),
        retention=RulesByDatabase(index.retention, retention_of),
        disposition=section("disposition.yaml", Disposition),
        intake=items("intake.yaml", IntakeRule),
        sections=CompiledSections(index.sections, section, sections),
        calendar=section("calendar.yaml", Calendar),
        company=section("company.yaml", Company) if "company.yaml" in index.content else None,
        notices=section("notices.yaml", NotificationRules),
        findings=section("findings.yaml", FindingRules),
        operations=section("operations.yaml", Operations),
        roles={role.id: role for role in items("roles.yaml", Role)},
        suites=RulesByDatabase(index.suites, suites_of),
        purposes=purposes,
        remarks=index.remarks,
    )


def _validate(data: object, adapter: TypeAdapter[_Item]) -> _Item:
    """Validate JSON data as strictly as the loader validates YAML; return the validated object.

    Args:
        data: Python values from JSON.
        adapter: pydantic type adapter for the data.
    """
    return adapter.validate_json(json.dumps(data), strict=True)
