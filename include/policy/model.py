"""A loaded policy pack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from include.policy.datamap import LazyMapping, MappedDatabase
from include.policy.expectations import Suite
from include.policy.intake import IntakeRule
from include.policy.problems import PackError, PackProblem
from include.policy.purposes import Purpose
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
from include.policy.section import Rules, RuleSection, SectionRules
from include.services.errors import UsageError


class PackFile(Rule):
    """A file that was read.

    Attributes:
        path: POSIX path inside the pack.
        sha256: hex digest of its bytes.
        shipped: the pack has no such file, ParcelSeal's own was read.
    """

    path: str
    sha256: str
    shipped: bool = False


_Rule = TypeVar("_Rule")


class ByDatabase(Sequence[_Rule], Generic[_Rule]):
    """Rules of a compiled pack, those of a database read when they are asked for.

    Args:
        databases: the database of each rule, in the order of the pack.
        read: returns the rules of a database in that order.
    """

    def __init__(self, databases: Sequence[str], read: Callable[[str], tuple[_Rule, ...]]) -> None:
        self._databases = tuple(databases)
        self._names = frozenset(databases)
        self._read = cache(read)

    def of(self, database: str) -> tuple[_Rule, ...]:
        """Return the rules of a database."""
        return self._read(database) if database in self._names else ()

    def __len__(self) -> int:
        return len(self._databases)

    def __iter__(self) -> Iterator[_Rule]:
        rest = {name: iter(self.of(name)) for name in self._names}
        return (next(rest[name]) for name in self._databases)

    @overload
    def __getitem__(self, at: int) -> _Rule: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[_Rule, ...]: ...
    def __getitem__(self, at: int | slice) -> _Rule | tuple[_Rule, ...]:
        return tuple(self)[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment] # as of a list


class StoredSections(LazyMapping[SectionRules]):
    """The files of single workflows in a compiled pack, each read when it is asked for.

    A task reads the file of its own workflow with `of`, which imports no other workflow.

    Args:
        connections: `SectionRules.connections` of each file.
        read: returns a file as its type.
        sections: returns the files of all workflows; imports the workflows.
    """

    def __init__(
        self,
        connections: Mapping[str, Sequence[str]],
        read: Callable[[str, type[SectionRules]], SectionRules],
        sections: Callable[[], Sequence[RuleSection[Any]]],
    ) -> None:
        super().__init__(connections, self._section)
        self.connections = connections
        self._read, self._sections = read, sections
        self._files: dict[str, SectionRules] = {}  # that were read

    def of(self, section: RuleSection[Rules]) -> Rules | None:
        """Return the content of a file, or None if the pack leaves it out."""
        if section.file not in self:
            return None
        rules = self._file(section.file, section.model)
        assert isinstance(rules, section.model)
        return rules

    def _file(self, file: str, model: type[SectionRules]) -> SectionRules:
        if file not in self._files:
            self._files[file] = self._read(file, model)
        return self._files[file]

    def _section(self, file: str) -> SectionRules:
        [model] = [section.model for section in self._sections() if section.file == file]
        return self._file(file, model)


class PolicyPack(Rule):
    """Everything a company changes, checked and typed.

    Attributes:
        folder: where it was read from.
        files: what was read, by path.
        databases: the mapped databases by name, at least one; reading a collection of one that has
            faults raises PackError.
        faults: problems of the databases whose data maps are faulty, by name.
        controls: of controls.yaml, in its order.
        backup: of backup.yaml.
        evidence: of evidence.yaml.
        retention: of retention.yaml; empty when the pack has none.
        disposition: of disposition.yaml.
        intake: of intake.yaml; empty when the pack has none.
        sections: of single workflows, by file; use `section`.
        calendar: of calendar.yaml.
        notices: of notices.yaml.
        operations: of operations.yaml.
        roles: of roles.yaml, by id.
        suites: of quality/*.yaml, with their databases, and what purposes.yaml adds to them.
        purposes: of purposes.yaml.
        remarks: what the reader of ``config check`` should know and no workflow stumbles over.
    """

    folder: Path
    files: tuple[PackFile, ...]
    databases: Mapping[str, MappedDatabase]
    faults: Mapping[str, tuple[PackProblem, ...]] = {}
    controls: tuple[Control, ...]
    backup: BackupRules
    evidence: EvidenceRules = EvidenceRules()
    retention: Sequence[RetentionRule]
    disposition: Disposition = Disposition()
    intake: tuple[IntakeRule, ...] = ()
    sections: Mapping[str, SectionRules] = {}
    calendar: Calendar
    notices: NoticeRules = NoticeRules()
    operations: Operations = Operations()
    roles: Mapping[str, Role]
    suites: Sequence[Suite] = ()
    purposes: tuple[Purpose, ...] = ()
    remarks: tuple[PackProblem, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def sha256(self) -> str:
        """Hex digest that names this policy: equal on every machine that has the same files."""
        return files_digest(self.files)

    def database(self, name: str) -> MappedDatabase:
        """The mapped database of that name.

        Raises:
            UsageError: the pack maps none of that name.
            PackError: its data map is faulty.
        """
        if name in self.faults:
            raise PackError(self.folder, self.faults[name])
        if name not in self.databases:
            known = ", ".join(self.databases)
            raise UsageError(f"The policy pack maps no database {name}.", f"It maps: {known}.")
        return self.databases[name]

    def require_sound(self) -> None:
        """Refuse a pack with faulty data maps.

        Raises:
            PackError: there are some; has every problem.
        """
        if self.faults:
            problems = [problem for each in self.faults.values() for problem in each]
            raise PackError(self.folder, list(dict.fromkeys(problems)))

    def section(self, section: RuleSection[Rules]) -> Rules | None:
        """The content of a workflow's own file; None when the pack leaves it out."""
        if isinstance(self.sections, StoredSections):
            return self.sections.of(section)
        rules = self.sections.get(section.file)
        assert rules is None or isinstance(rules, section.model)
        return rules

    def require(self, section: RuleSection[Rules]) -> Rules:
        """The content of a workflow's own file.

        Raises:
            UsageError: the pack leaves the file out.
        """
        rules = self.section(section)
        if rules is None:
            raise section.missing()
        return rules

    def suites_of(self, database: str, *, incoming: bool = False) -> tuple[Suite, ...]:
        """The suites of a database's formal collections, or of its incoming ones."""
        suites = self.suites
        if isinstance(suites, ByDatabase):
            suites = suites.of(database)
        return tuple(
            suite for suite in suites if suite.database == database and suite.incoming is incoming
        )

    def intake_rule(self, rule_id: str) -> IntakeRule:
        """The incoming table of that id.

        Raises:
            UsageError: the pack has none of that id.
        """
        for one in self.intake:
            if one.id == rule_id:
                return one
        raise UsageError(f"The policy pack has no intake {rule_id}.")

    @property
    def workflow_connections(self) -> set[str]:
        """Connections with which workflows have rights of their own on mapped databases."""
        if isinstance(self.sections, StoredSections):
            named = list(self.sections.connections.values())
        else:
            named = [rules.connections for rules in self.sections.values()]
        own = {connection for names in named for connection in names}
        intake = {rule.connection for rule in self.intake}
        return own | intake | ({self.disposition.connection} if self.retention else set())

    def database_of(self, collection: str, database: str | None) -> MappedDatabase:
        """The mapped database that a rule means: the named one, else the one with the collection.

        Raises:
            UsageError: there is none, or there are several.
            PackError: its data map is faulty.
        """
        return self.database(self.holder_of(collection, database))

    def holder_of(self, collection: str, database: str | None) -> str:
        """Return the name of the database that a rule means, also if its data map is faulty.

        Raises:
            UsageError: there is none, or there are several.
        """
        if database is not None:
            return database
        holders = [name for name, each in self.databases.items() if collection in each.collections]
        if not holders:  # a map that is no YAML may have it
            unread = (name for name in self.faults if not self.databases[name].collections)
            holders = [*unread][:1]
        if len(holders) != 1:
            raise UsageError(f"{len(holders)} mapped databases have the collection {collection}.")
        return holders[0]

    def retention_of(self, database: str) -> tuple[RetentionRule, ...]:
        """The record classes of a database, in the order of retention.yaml."""
        if isinstance(self.retention, ByDatabase):
            return self.retention.of(database)
        return tuple(
            one
            for one in self.retention
            if self.holder_of(one.collection, one.database) == database
        )

    def controls_of(self, workflow: str) -> tuple[Control, ...]:
        """The controls for which a workflow's bundles are the evidence."""
        return tuple(one for one in self.controls if one.workflow == workflow)


def files_digest(files: Iterable[PackFile]) -> str:
    """SHA-256 over the lines that ``sha256sum`` prints of the files, sorted by path (bytes)."""
    lines = sorted((one.path.encode(), one.sha256) for one in files)
    listing = b"".join(digest.encode() + b"  " + path + b"\n" for path, digest in lines)
    return hashlib.sha256(listing).hexdigest()
