"""Read all files of a policy pack, and report all of its problems at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from include.policy import intake as intakes
from include.policy import retention as retentions
from include.policy.checks import CrossChecks
from include.policy.company import Company
from include.policy.datamap import DatabaseFacts, FaultyCollections, MappedDatabase
from include.policy.document import (
    Document,
    DocumentError,
    drop_faults,
    read_bytes,
    read_document,
)
from include.policy.expectations import Suite
from include.policy.files import DATAMAP, QUALITY
from include.policy.intake import IntakeRule
from include.policy.manifests import DataMap, read_datamap
from include.policy.model import PackFile, PolicyPack
from include.policy.problems import PackError, PackProblem
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
    Targets,
)
from include.policy.section import PackNames, RuleSection, SectionRules

SHIPPED = Path(__file__).parent / "pack"
"""The shipped pack, which supplies the files that a pack leaves out."""

RETENTION = "retention.yaml"
WITH_DEFAULT = (
    "backup.yaml",
    "calendar.yaml",
    "controls.yaml",
    "evidence.yaml",
    "notices.yaml",
    "roles.yaml",
)
# Files without a shipped default, because they name the company, name collections of its databases
# or describe its Airflow installation. The sections have no shipped defaults either.
WITHOUT_DEFAULT = (
    "company.yaml",
    "disposition.yaml",
    "findings.yaml",
    "intake.yaml",
    "operations.yaml",
    "purposes.yaml",
    RETENTION,
)
_YAML = (".yaml", ".yml")
_DATAMAP_PAGE = "docs/reference/policy-pack/datamap.md"

_Content = TypeVar("_Content")

Sections = Sequence[RuleSection[Any]]
SectionsOf = Callable[[], Sections]
"""A function that returns the files of single workflows. Calling it imports the workflows."""


@dataclass(frozen=True)
class PackContent:
    """A loaded policy pack, and the content of its files, from which the compiled pack is made.

    Attributes:
        pack: the validated pack.
        files: content of the files outside of quality/, as Python values that JSON can express, by
            path in the pack.
        suites: pairs of a database name and the content of a suite in quality/*.yaml.
    """

    pack: PolicyPack
    files: Mapping[str, Any]
    suites: Sequence[tuple[str, Any]]


def load_pack(folder: Path, sections: Sections) -> PolicyPack:
    """Read and validate a policy pack.

    Only ``datamap/*.yaml`` is required. If the pack lacks a file of `WITH_DEFAULT`, the file that
    is shipped with ParcelSeal is used. All other files have no default, because they name the
    company, name collections of its databases or describe its Airflow installation.

    Args:
        folder: folder of the pack.
        sections: declarations of those pack files that only a single workflow reads.

    Raises:
        PackError: the pack cannot be used; the error lists all problems with file, line and path.
    """
    pack = read_pack(folder, sections).pack
    pack.require_sound()
    return pack


def read_pack(folder: Path, sections: Sections) -> PackContent:
    """Read and validate a policy pack, and return the unvalidated content of its files as well.

    Unlike `load_pack`, this function accepts a pack with faulty data maps if at least one data map
    is sound. The problems of the faulty data maps are in `PolicyPack.faults`.

    Args:
        folder: folder of the pack.
        sections: declarations of those pack files that only a single workflow reads.

    Raises:
        PackError: a file other than a data map is faulty, every data map is faulty, or the names of
            the databases in a faulty data map cannot be read.
    """
    folder = folder.absolute()
    reader = _Reader(folder, sections)
    if not folder.is_dir():
        raise PackError(folder, [PackProblem("", None, "", "the folder does not exist")])
    if not (folder / DATAMAP).is_dir():
        message = f"is missing: a pack needs a data map, see {_DATAMAP_PAGE}"
        raise PackError(folder, [PackProblem(f"{DATAMAP}/", None, "", message)])
    backup = reader.read_file("backup.yaml", TypeAdapter(BackupRules)) or BackupRules()
    evidence = reader.read_file("evidence.yaml", TypeAdapter(EvidenceRules)) or EvidenceRules()
    datamap = reader.read_datamaps(backup.defaults)
    calendar = reader.read_file("calendar.yaml", TypeAdapter(Calendar))
    company = reader.read_file("company.yaml", TypeAdapter(Company))
    roles = reader.read_items("roles.yaml", TypeAdapter(Role))
    controls = reader.read_items("controls.yaml", TypeAdapter(Control))
    retention = reader.read_items(RETENTION, TypeAdapter(RetentionRule))
    purposes = reader.read_items("purposes.yaml", TypeAdapter(Purpose))
    intake = reader.read_items("intake.yaml", TypeAdapter(IntakeRule))
    personal = {
        (database.name, collection.name, field.name)
        for database in datamap.databases.values()
        for collection in database.collections.values()
        for field in collection.fields.values()
        if field.is_personal
    }
    checks = CrossChecks(reader.documents, datamap.inventory, reader.problems, personal)
    checks.check_roles(roles, controls)
    checks.check_clause_titles(controls)
    checks.check_retention(retention)
    for loc, message in retentions.find_faults(retention, datamap.inventory):
        checks.add_problem(RETENTION, loc, message)
    disposition = reader.read_file("disposition.yaml", TypeAdapter(Disposition)) or Disposition()
    for loc, message in retentions.approval_faults(disposition.approval, datamap.inventory):
        checks.add_problem("disposition.yaml", loc, message)
    checks.check_purposes(purposes)
    for loc, message in intakes.find_faults(intake, datamap.inventory):
        checks.add_problem("intake.yaml", loc, message)
    notices = (
        reader.read_file("notices.yaml", TypeAdapter(NotificationRules)) or NotificationRules()
    )
    findings = reader.read_file("findings.yaml", TypeAdapter(FindingRules)) or FindingRules()
    checks.check_finding_roles(findings, roles)
    operations = reader.read_file("operations.yaml", TypeAdapter(Operations)) or Operations()
    names = PackNames(
        datamap.databases,
        datamap.inventory,
        frozenset(role.id for role in roles.values()),
        company.name if company else None,
    )
    section_rules: dict[str, SectionRules] = {}
    for section in sections:
        rules = reader.read_file(section.file, TypeAdapter(section.model))
        if rules is not None:
            section_rules[section.file] = rules
            for loc, message in section.cross_check(rules, names):
                checks.add_problem(section.file, loc, message)
    check_ids = set(intakes.check_ids(intake.values(), datamap.inventory))
    incoming = reader.values_of("intake.yaml", "collection")
    suites = reader.read_suites(checks, incoming, check_ids)
    reader.check_unknown_files()
    faults = reader.faults_by_database(datamap, checks.doubtful)
    faulty = {facts.name: facts for databases in datamap.faulty.values() for facts in databases}
    sound = {name: database for name, database in datamap.databases.items() if name not in faults}
    if reader.problems and not (faults and sound):
        raise PackError(folder, reader.problems)
    faulty_databases = {
        name: MappedDatabase.model_construct(
            **{fact: getattr(facts, fact) for fact in DatabaseFacts.model_fields},
            collections=FaultyCollections(
                datamap.inventory.collections_of(name), folder, faults[name]
            ),
        )
        for name, facts in faulty.items()
    }
    pack = PolicyPack(
        folder=folder,
        files=tuple(sorted(reader.files, key=lambda file: file.path)),
        databases=sound | faulty_databases,
        faults=faults,
        controls=tuple(controls.values()),
        backup=backup,
        evidence=evidence,
        retention=tuple(retention.values()),
        disposition=disposition,
        intake=tuple(intake.values()),
        sections=section_rules,
        calendar=calendar or Calendar(),
        company=company,
        notices=notices,
        findings=findings,
        operations=operations,
        roles={role.id: role for role in roles.values()},
        suites=add_over_collection_checks(suites, tuple(purposes.values()), sound),
        purposes=tuple(purposes.values()),
        remarks=tuple(datamap.remarks),
    )
    content = {name: document.data for name, document in reader.documents.items()}
    return PackContent(
        pack,
        {name: data for name, data in content.items() if not name.startswith(f"{QUALITY}/")},
        reader.suite_contents,
    )


class _Reader:
    """Reads each file of a pack once, and collects the content and the problems of all files."""

    def __init__(self, folder: Path, sections: Sections) -> None:
        self.folder = folder
        self.names = {*WITH_DEFAULT, *WITHOUT_DEFAULT, *(section.file for section in sections)}
        self.files: list[PackFile] = []
        self.problems: list[PackProblem] = []
        self.documents: dict[str, Document] = {}
        self.suite_contents: list[tuple[str, Any]] = []
        self._unreadable: dict[str, bytes] = {}

    def read_file(self, name: str, adapter: TypeAdapter[_Content]) -> _Content | None:
        """Return the validated content of a file; None if the file is faulty or does not exist.

        Args:
            name: path of the file in the pack.
            adapter: pydantic type adapter for the content.
        """
        document = self._pack_document(name)
        if document is None:
            return None
        try:
            # Strict validation accepts a list for a tuple only from JSON.
            return adapter.validate_json(json.dumps(document.data), strict=True)
        except ValidationError as error:
            self.problems += document.problems(error)
            return None

    def read_items(self, name: str, adapter: TypeAdapter[_Content]) -> dict[int, _Content]:
        """Return the items of a file that contains a list, by position in the list.

        Problems of the items are collected. A faulty item is returned without its faulty values
        (see `drop_faults`), so that checks across files can use its other values. An item that is
        still not valid is left out.

        Args:
            name: path of the file in the pack.
            adapter: pydantic type adapter for one item.
        """
        document = self._pack_document(name)
        if document is None:
            return {}
        if not isinstance(document.data, list):
            self.problems.append(document.problem((), "should be a list"))
            return {}
        items = {}
        for at, item in enumerate(document.data):
            try:
                items[at] = adapter.validate_json(json.dumps(item), strict=True)
            except ValidationError as error:
                self.problems += document.problems(error, (at,))
                rest = drop_faults(adapter, item, _shipped_example(name))
                if rest is not None:
                    items[at] = rest
        return items

    def values_of(self, file: str, key: str) -> set[str]:
        """Return the values of a key in all items of a file, including faulty items.

        Args:
            file: path of a file that contains a list.
            key: key in the items of the list.
        """
        document = self.documents.get(file)
        items = document.data if document and isinstance(document.data, list) else []
        return {str(item[key]) for item in items if isinstance(item, dict) and key in item}

    def _pack_document(self, name: str) -> Document | None:
        """Return the content of a pack file.

        If the pack lacks the file, read the file that is shipped with ParcelSeal. Return None if
        neither file exists or if the file cannot be read.

        Args:
            name: path of the file in the pack.
        """
        shipped = name in WITH_DEFAULT and not self._exists(name)
        path = (SHIPPED if shipped else self.folder) / name
        if not shipped and not self._exists(name):
            return None
        document = self._document(path, name, shipped)
        if document is not None:
            self.documents[name] = document
        return document

    def read_datamaps(self, targets: Targets) -> DataMap:
        """Read and validate the data maps of the pack, and collect the problems in them.

        Args:
            targets: recovery targets of databases for which the data map states none.
        """
        paths = self._yaml_files(DATAMAP)
        if not paths:
            message = f"holds no .yaml file: a pack needs a data map, see {_DATAMAP_PAGE}"
            self.problems.append(PackProblem(f"{DATAMAP}/", None, "", message))
        results = [self._document(path, f"{DATAMAP}/{path.name}", False) for path in paths]
        documents = [document for document in results if document is not None]
        datamap = read_datamap(documents, targets, self._unreadable)
        if len(documents) == len(paths) > 0 and not datamap.problems and not datamap.databases:
            message = "no file maps a database (dataset: [...])"
            self.problems.append(PackProblem(f"{DATAMAP}/", None, "", message))
        self.problems += datamap.problems
        return datamap

    def faults_by_database(
        self, datamap: DataMap, doubtful: Sequence[PackProblem]
    ) -> dict[str, tuple[PackProblem, ...]]:
        """Return the problems of faulty data maps, by name of the database.

        Return an empty dict if a problem of the pack belongs to no database. The whole pack is then
        refused.

        Args:
            datamap: the data maps.
            doubtful: problems of other files that may be wrong, because a data map could not be
                read. They count as problems of the unreadable data maps.
        """
        faults: dict[str, tuple[PackProblem, ...]] = {}
        for problem in self.problems:
            names = [facts.name for facts in datamap.faulty.get(problem.file, [])]
            if problem in doubtful:
                names = datamap.inventory.unreadable
            if not names:
                return {}
            for name in names:
                faults[name] = (*faults.get(name, ()), problem)
        return faults

    def read_suites(
        self, checks: CrossChecks, incoming: set[str], check_ids: set[tuple[str, str, str]]
    ) -> list[Suite]:
        """Read and validate the suites in quality/.

        Return an empty list if the pack has no folder quality/.

        Args:
            checks: checks across the files of the pack.
            incoming: names of the collections that intake.yaml names.
            check_ids: database, collection and id of the checks in intake.yaml.
        """
        if not self._exists(QUALITY):
            return []
        suites: list[Suite] = []
        rule_ids = set(check_ids)
        for path in self._yaml_files(QUALITY):
            name = f"{QUALITY}/{path.name}"
            items = self.read_items(name, TypeAdapter(Suite))
            if name in self.documents:
                databases = checks.check_suites(name, rule_ids, incoming)
                data = self.documents[name].data
                self.suite_contents += [
                    (databases[at], data[at]) for at in items if at in databases
                ]
                suites += [
                    suite.model_copy(update={"database": databases[at]})
                    for at, suite in items.items()
                    if at in databases
                ]
        return suites

    def _yaml_files(self, folder: str) -> list[Path]:
        try:
            paths = list((self.folder / folder).iterdir())
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise PackError(self.folder, [PackProblem(f"{folder}/", None, "", message)]) from error
        return sorted(
            path for path in paths if path.suffix in _YAML and not path.name.startswith(".")
        )

    def _exists(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def _document(self, path: Path, name: str, shipped: bool) -> Document | None:
        try:
            content = read_bytes(path, name)
            digest = hashlib.sha256(content).hexdigest()
            self.files.append(PackFile(path=name, sha256=digest, shipped=shipped))
        except DocumentError as error:
            self.problems += error.problems
            return None
        try:
            document = read_document(content, name)
        except DocumentError as error:
            self.problems += error.problems
            if name.startswith(f"{DATAMAP}/"):
                self._unreadable[name] = content
            return None
        self.problems += document.faults
        return document

    def check_unknown_files(self) -> None:
        """Add a problem for each YAML file that no workflow reads; its name may be misspelled."""
        for name in self._yaml_names():
            parent, _, rest = name.partition("/")
            if name in self.names or (parent in (DATAMAP, QUALITY) and rest and "/" not in rest):
                continue
            folders = f"{DATAMAP}/*.yaml, {QUALITY}/*.yaml"
            names = ", ".join(sorted(self.names))
            message = f"no workflow reads this file; a pack has {folders}, {names}"
            self.problems.append(PackProblem(name, None, "", message))

    def _yaml_names(self) -> Iterator[str]:
        for at, folders, names in os.walk(self.folder):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            for name in names:
                if name.lower().endswith(_YAML) and not name.startswith("."):
                    yield (Path(at) / name).relative_to(self.folder).as_posix()


def _shipped_example(name: str) -> Any:
    """Return the first item of a shipped file. It has a valid value for each required key.

    Return None if the file cannot be read or does not contain a list.

    Args:
        name: path of the file in a pack.
    """
    try:
        data = read_document(read_bytes(SHIPPED / name, name), name).data
    except DocumentError:
        return None
    return data[0] if isinstance(data, list) and data else None
