"""The model of a loaded policy pack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from include.messages import Message, verbatim
from include.policy.company import Company
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
    FindingRules,
    NotificationRules,
    Operations,
    Role,
    Rule,
    Texts,
    clause_message,
    translated_message,
)
from include.policy.section import Rules, RuleSection, SectionRules
from include.services.errors import UsageError


class PackFile(Rule):
    """A file of the policy pack that the loader read.

    Attributes:
        path: relative path inside the pack, with ``/`` as separator.
        sha256: SHA-256 digest of the file, in hex.
        shipped: True if the pack lacks the file and the file shipped with ParcelSeal was read
            instead.
    """

    path: str
    sha256: str
    shipped: bool = False


_Rule = TypeVar("_Rule")


class RulesByDatabase(Sequence[_Rule], Generic[_Rule]):
    """The rules of a compiled pack as a sequence. The rules of a database are read at first use.

    Args:
        databases: name of the database of each rule, in the order of the rules in the pack.
        read: function that takes the name of a database and returns its rules, in the order of the
            pack.
    """

    def __init__(self, databases: Sequence[str], read: Callable[[str], tuple[_Rule, ...]]) -> None:
        self._databases = tuple(databases)
        self._names = frozenset(databases)
        self._read = cache(read)

    def of(self, database: str) -> tuple[_Rule, ...]:
        """Return the rules of a database; empty if it has none."""
        return self._read(database) if database in self._names else ()

    def __len__(self) -> int:
        return len(self._databases)

    def __iter__(self) -> Iterator[_Rule]:
        rules_by_database = {name: iter(self.of(name)) for name in self._names}
        return (next(rules_by_database[name]) for name in self._databases)

    @overload
    def __getitem__(self, index: int) -> _Rule: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[_Rule, ...]: ...
    def __getitem__(self, index: int | slice) -> _Rule | tuple[_Rule, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment] # compared by content, like a list


class CompiledSections(LazyMapping[SectionRules]):
    """The pack files of a compiled pack that only a single workflow reads, by file name.

    Each file is read when it is first used. A task reads the file of its own workflow with `of`, so
    no other workflow has to be imported.

    Args:
        connections: file name -> ids of the connections that the file names.
        read: function that takes a file name and a model, and returns the content of the file as an
            instance of the model.
        sections: function that returns the `RuleSection` of all workflows. Calling it imports the
            workflows.
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
        self._loaded: dict[str, SectionRules] = {}

    def of(self, section: RuleSection[Rules]) -> Rules | None:
        """Return the content of a pack file that only a single workflow reads.

        Return None if the pack lacks the file.

        Args:
            section: declaration of the file.
        """
        if section.file not in self:
            return None
        rules = self._file(section.file, section.model)
        assert isinstance(rules, section.model)
        return rules

    def _file(self, file: str, model: type[SectionRules]) -> SectionRules:
        if file not in self._loaded:
            self._loaded[file] = self._read(file, model)
        return self._loaded[file]

    def _section(self, file: str) -> SectionRules:
        [model] = [section.model for section in self._sections() if section.file == file]
        return self._file(file, model)


class PolicyPack(Rule):
    """A validated policy pack: all rules that a company can change.

    Attributes:
        folder: folder from which the pack was read.
        files: files that were read, sorted by path.
        databases: mapped databases by name, at least one. Reading the collections of a database
            with a faulty data map raises PackError.
        faults: problems of faulty data maps, by name of the database.
        controls: controls of controls.yaml, in the order of the file.
        backup: rules of backup.yaml.
        evidence: rules of evidence.yaml.
        retention: rules of retention.yaml; empty if the pack has no such file.
        disposition: rules of disposition.yaml.
        intake: rules of intake.yaml; empty if the pack has no such file.
        sections: content of the files that only a single workflow reads, by file name. Use the
            method `section` to read one.
        calendar: rules of calendar.yaml.
        company: company of company.yaml; None if the pack has no such file.
        notices: rules of notices.yaml.
        findings: rules of findings.yaml.
        operations: rules of operations.yaml.
        roles: roles of roles.yaml, by id.
        suites: suites of quality/*.yaml, each with its database, including expectations that
            ParcelSeal makes from purposes.yaml.
        purposes: purposes of purposes.yaml.
        remarks: remarks that ``config check`` shows; no workflow depends on them.
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
    company: Company | None = None
    notices: NotificationRules = NotificationRules()
    findings: FindingRules = FindingRules()
    operations: Operations = Operations()
    roles: Mapping[str, Role]
    suites: Sequence[Suite] = ()
    purposes: tuple[Purpose, ...] = ()
    remarks: tuple[PackProblem, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the pack's folder."""
        return self.folder.name

    @property
    def sha256(self) -> str:
        """Return a SHA-256 digest over all files of the pack, in hexadecimal.

        The digest is the same on all machines.
        """
        return files_digest(self.files)

    def database(self, name: str) -> MappedDatabase:
        """Return the mapped database of a given name.

        Raises:
            UsageError: the pack maps no database of this name.
            PackError: the data map of the database is faulty.
        """
        if name in self.faults:
            raise PackError(self.folder, self.faults[name])
        if name not in self.databases:
            names = ", ".join(self.databases)
            raise UsageError(f"The policy pack maps no database {name}.", f"It maps: {names}.")
        return self.databases[name]

    def require_sound(self) -> None:
        """Raise PackError if a data map of the pack is faulty.

        Raises:
            PackError: a data map is faulty; the error lists all problems.
        """
        if self.faults:
            problems = [problem for faults in self.faults.values() for problem in faults]
            raise PackError(self.folder, list(dict.fromkeys(problems)))

    def section(self, section: RuleSection[Rules]) -> Rules | None:
        """Return the content of a pack file that only a single workflow reads.

        Return None if the pack lacks the file.

        Args:
            section: declaration of the file.
        """
        if isinstance(self.sections, CompiledSections):
            return self.sections.of(section)
        rules = self.sections.get(section.file)
        assert rules is None or isinstance(rules, section.model)
        return rules

    def require(self, section: RuleSection[Rules]) -> Rules:
        """Return the content of a pack file that only a single workflow reads.

        Args:
            section: declaration of the file.

        Raises:
            UsageError: the pack lacks the file.
        """
        rules = self.section(section)
        if rules is None:
            raise section.missing()
        return rules

    def suites_of(self, database: str, *, incoming: bool = False) -> tuple[Suite, ...]:
        """Return the suites of a database, either for formal or for incoming collections.

        Args:
            database: name of the database.
            incoming: True for the suites of incoming collections, False for those of formal
                collections.
        """
        suites = self.suites
        if isinstance(suites, RulesByDatabase):
            suites = suites.of(database)
        return tuple(
            suite for suite in suites if suite.database == database and suite.incoming is incoming
        )

    def intake_rule(self, rule_id: str) -> IntakeRule:
        """Return the rule of intake.yaml that has a given id.

        Raises:
            UsageError: the pack has no rule with this id.
        """
        for rule in self.intake:
            if rule.id == rule_id:
                return rule
        raise UsageError(f"The policy pack has no intake {rule_id}.")

    @property
    def workflow_connections(self) -> set[str]:
        """Return the ids of the connections that pack files name for one workflow each.

        If such a connection is configured, the workflow uses it instead of the connections that the
        data maps name.
        """
        if isinstance(self.sections, CompiledSections):
            by_section = list(self.sections.connections.values())
        else:
            by_section = [rules.connections for rules in self.sections.values()]
        connections = {connection for names in by_section for connection in names}
        connections |= {rule.connection for rule in self.intake}
        return connections | ({self.disposition.connection} if self.retention else set())

    def database_of(self, collection: str, database: str | None) -> MappedDatabase:
        """Return the database to which a rule refers.

        Args:
            collection: name of the collection that the rule names.
            database: name of the database that the rule names. If it is None, the only database
                with the collection is returned.

        Raises:
            UsageError: no database, or more than one, has the collection.
            PackError: the data map of the database is faulty.
        """
        return self.database(self.database_name_of(collection, database))

    def database_name_of(self, collection: str, database: str | None) -> str:
        """Return the name of the database to which a rule refers, even if its data map is faulty.

        Args:
            collection: name of the collection that the rule names.
            database: name of the database that the rule names. If it is None, the only database
                with the collection is used. If no database has it, the first database whose data
                map could not be parsed is used, because it may have the collection.

        Raises:
            UsageError: several databases have the collection, or no database has or may have it.
        """
        if database is not None:
            return database
        names = [
            name for name, mapped in self.databases.items() if collection in mapped.collections
        ]
        if not names:  # a data map that could not be parsed may have the collection
            unparsed = (name for name in self.faults if not self.databases[name].collections)
            names = [*unparsed][:1]
        if len(names) != 1:
            raise UsageError(f"{len(names)} mapped databases have the collection {collection}.")
        return names[0]

    def retention_of(self, database: str) -> tuple[RetentionRule, ...]:
        """Return the retention rules of a database, in the order of retention.yaml.

        There is one retention rule for each record class.
        """
        if isinstance(self.retention, RulesByDatabase):
            return self.retention.of(database)
        return tuple(
            rule
            for rule in self.retention
            if self.database_name_of(rule.collection, rule.database) == database
        )

    def clause_message(self, clause: str) -> Message:
        """Return the number and title of a clause as a message.

        Return only the number if no control states the title of the clause.
        """
        title = self._clause_title(clause)
        return clause_message(clause, translated_message(title) if title else None)

    def role_message(self, role: str) -> Message:
        """Return the title of a role; its id if the policy pack no longer has the role."""
        return self.roles[role].message if role in self.roles else verbatim(role)

    def _clause_title(self, clause: str) -> Texts | None:
        titles = (control.clause_title for control in self.controls if control.clause == clause)
        return next(filter(None, titles), None)

    def controls_of(self, workflow: str) -> tuple[Control, ...]:
        """Return the controls whose evidence is in the bundles of a workflow.

        Each returned control has the title of its clause, even if another control in controls.yaml
        states this title.
        """
        return tuple(
            control.model_copy(update={"clause_title": self._clause_title(control.clause)})
            for control in self.controls
            if control.workflow == workflow
        )


def files_digest(files: Iterable[PackFile]) -> str:
    """Return a SHA-256 digest over the digests and paths of files.

    The digest is that of the text which ``sha256sum`` prints for these files, sorted by path.
    """
    lines = sorted((file.path.encode(), file.sha256) for file in files)
    listing = b"".join(digest.encode() + b"  " + path + b"\n" for path, digest in lines)
    return hashlib.sha256(listing).hexdigest()
