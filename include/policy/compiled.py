"""Compiled packs: what a pack's files say, checked once, for processes that need parts of it.

Reading 300 data maps takes 13 seconds. A compiled pack is one file that holds the databases without
their collections, the content of the other files, and, each on its own, the collections, retention
rules and suites of a database. They are read at first use.

The file is named after the digests of the pack's files and of the code that checked them, so that a
change of either needs a new one. It begins with the digest of its own content: one that is damaged
or cut off is made anew. Its content is JSON, and goes through the types that the loader uses. Only
a folder of the running user that no other user may enter is used: a file there is worth as much as
any other file that this user may write, and holds no executable content.
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

from include.policy.datamap import (
    DatabaseFacts,
    FaultyCollections,
    LazyMapping,
    MappedCollection,
    MappedDatabase,
)
from include.policy.document import DocumentError
from include.policy.expectations import Suite
from include.policy.files import digest, yaml_names
from include.policy.intake import IntakeRule
from include.policy.loader import RETENTION, PackContent, SectionsOf, load_pack, read_pack
from include.policy.model import ByDatabase, PackFile, PolicyPack, StoredSections
from include.policy.problems import PackProblem
from include.policy.purposes import Purpose, with_unneeded
from include.policy.retention import Disposition, RetentionRule
from include.policy.rules import (
    BackupRules,
    Calendar,
    Control,
    EvidenceRules,
    NoticeRules,
    Operations,
    Role,
    Rule,
)

FORMAT = 2
MOST_BYTES = 32 << 20  # of a compiled pack; 300 data maps of 71 tables take half a MiB
MOST_PACKS = 3  # that stay in the folder
_SUFFIX = ".pack"
_CODE = Path(__file__).resolve().parent.parent
_log = logging.getLogger(__name__)

_FACTS = tuple(DatabaseFacts.model_fields)
_COLLECTIONS: TypeAdapter[Mapping[str, MappedCollection]] = TypeAdapter(
    Mapping[str, MappedCollection]
)

_Item = TypeVar("_Item")


class _Index(Rule):
    """What every process reads of a compiled pack.

    Attributes:
        files: what was read, by path.
        databases: without their collections.
        collections: their names, of each database.
        faults: problems of the databases whose data maps are faulty, by name.
        content: of the files outside of datamap/, quality/ and retention.yaml, by name.
        sections: connections of each file of a single workflow.
        retention: database of each rule of retention.yaml.
        suites: database of each suite.
        remarks: of the pack.
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
    """The members of a compiled pack; it stays in memory, so that its file may be removed."""

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))

    def read(self, member: str) -> bytes:
        return self._zip.read(member)

    def collection_reader(self, member: str) -> Callable[[str], MappedCollection]:
        """Return what reads collections of a database; the first that is asked for reads all."""
        collections = cache(lambda: _COLLECTIONS.validate_json(self.read(member)))
        return lambda name: collections()[name]

    def items(self, member: str, form: TypeAdapter[_Item]) -> tuple[_Item, ...]:
        """Return the items of a list as the loader does; see `_item`."""
        return tuple(_item(data, form) for data in json.loads(self.read(member)))


def compiled_pack(folder: Path, sections: SectionsOf, forms: Path) -> PolicyPack:
    """Read a policy pack in its compiled form; compile it first if its files changed.

    If the folder cannot be used, read the files. The pack may have databases with faults.

    Args:
        folder: the pack, absolute.
        sections: returns the files of single workflows; called if the pack is compiled now.
        forms: folder of the compiled packs; is made if it is missing.

    Raises:
        PackError: as ``read_pack``.
    """
    try:
        digests = {name: digest(folder / name) for name in yaml_names(folder)}
    except (OSError, DocumentError):
        return load_pack(folder, sections())  # it says what is wrong
    path = forms / f"{_key(digests)}{_SUFFIX}"
    try:
        _make_private(forms)
        content = _stored(path)
        if content is None:
            with _lock(forms):
                content = _stored(path) or _compile(folder, sections, digests, path)
    except OSError as error:
        _log.warning("The policy pack is not compiled: %s", error)
        return read_pack(folder, sections()).pack
    return _opened(content, folder, sections)


def _key(digests: Mapping[str, str]) -> str:
    lines = [FORMAT, _code_digest(), *sorted(digests.items())]
    return sha256(json.dumps(lines).encode()).hexdigest()


@cache
def _code_digest() -> str:
    """Return a digest of the code and the shipped files, by name, size and time of change."""
    lines: list[object] = [sys.version, *(version(name) for name in ("pydantic", "fideslang"))]
    for at, folders, names in os.walk(_CODE):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".py", ".yaml")):
                status = Path(at, name).stat()
                lines.append((at[len(str(_CODE)) :], name, status.st_size, status.st_mtime_ns))
    return sha256(json.dumps(lines).encode()).hexdigest()


def _make_private(forms: Path) -> None:
    """Make the folder of compiled packs.

    Raises:
        OSError: it cannot be made, or another user may write there.
    """
    forms.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = forms.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or forms.is_symlink():
        raise PermissionError(f"{forms} should be a folder of this user with mode 700")


@contextmanager
def _lock(forms: Path) -> Iterator[None]:
    """Let one process compile at a time; the lock of a killed process is free."""
    with (forms / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _stored(path: Path) -> bytes | None:
    """Return the content of a compiled pack, or None where there is none or it is damaged."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    own, content = raw[:32], raw[32:]
    return content if sha256(content).digest() == own else None


def _compile(folder: Path, sections: SectionsOf, digests: Mapping[str, str], path: Path) -> bytes:
    """Load a pack and return its compiled form; keep it unless a file changed meanwhile."""
    loaded = read_pack(folder, sections())
    content = _form(loaded)
    read = {file.path: file.sha256 for file in loaded.pack.files if not file.shipped}
    if read != digests:
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
    """Write a compiled pack at once as a whole, and remove old ones and parts of killed writers."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as stream:
        stream.write(sha256(content).digest() + content)
    Path(stream.name).replace(path)
    packs = sorted(path.parent.glob(f"*{_SUFFIX}"), key=lambda each: each.stat().st_mtime)
    for old in [*packs[:-MOST_PACKS], *path.parent.glob("*.part")]:
        old.unlink(missing_ok=True)


def _form(loaded: PackContent) -> bytes:
    pack = loaded.pack
    content = dict(loaded.files)
    rules = content.pop(RETENTION, [])
    owners = [pack.holder_of(rule.collection, rule.database) for rule in pack.retention]
    index = _Index(
        files=pack.files,
        databases=tuple(
            DatabaseFacts.model_construct(**{name: getattr(each, name) for name in _FACTS})
            for each in pack.databases.values()
        ),
        collections=tuple(tuple(each.collections) for each in pack.databases.values()),
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
            own = [rule for rule, owner in zip(rules, owners, strict=True) if owner == name]
            archive.writestr(f"{number}/retention", json.dumps(own))
            suites = [suite for owner, suite in loaded.suites if owner == name]
            archive.writestr(f"{number}/suites", json.dumps(suites))
    return stream.getvalue()


def _opened(content: bytes, folder: Path, sections: SectionsOf) -> PolicyPack:
    """Return the pack of a compiled form; the parts of single databases are read at first use."""
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

    def section(name: str, form: type[_Item]) -> _Item:
        return _item(index.content.get(name, {}), TypeAdapter(form))

    def items(name: str, form: type[_Item]) -> tuple[_Item, ...]:
        data = index.content.get(name, [])
        assert isinstance(data, list)
        return tuple(_item(each, TypeAdapter(form)) for each in data)

    purposes = items("purposes.yaml", Purpose)

    def retention_of(database: str) -> tuple[RetentionRule, ...]:
        rules: TypeAdapter[RetentionRule] = TypeAdapter(RetentionRule)
        return archive.items(f"{members[database]}/retention", rules)

    def suites_of(database: str) -> tuple[Suite, ...]:
        written = archive.items(f"{members[database]}/suites", TypeAdapter(Suite))
        placed = [suite.model_copy(update={"database": database}) for suite in written]
        sound = {} if database in index.faults else {database: databases[database]}
        return with_unneeded(placed, purposes, sound)

    return PolicyPack.model_construct(
        folder=folder,
        files=index.files,
        databases=databases,
        faults=index.faults,
        controls=items("controls.yaml", Control),
        backup=section("backup.yaml", BackupRules),
        evidence=section("evidence.yaml", EvidenceRules),
        retention=ByDatabase(index.retention, retention_of),
        disposition=section("disposition.yaml", Disposition),
        intake=items("intake.yaml", IntakeRule),
        sections=StoredSections(index.sections, section, sections),
        calendar=section("calendar.yaml", Calendar),
        notices=section("notices.yaml", NoticeRules),
        operations=section("operations.yaml", Operations),
        roles={role.id: role for role in items("roles.yaml", Role)},
        suites=ByDatabase(index.suites, suites_of),
        purposes=purposes,
        remarks=index.remarks,
    )


def _item(data: object, form: TypeAdapter[_Item]) -> _Item:
    """Return plain content as its type, exactly as the loader does it."""
    return form.validate_json(json.dumps(data), strict=True)
