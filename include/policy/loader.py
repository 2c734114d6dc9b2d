"""Reading a policy pack: all of it or none, with every problem at once."""

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
from include.policy.datamap import DatabaseFacts, FaultyCollections, MappedDatabase
from include.policy.document import (
    Document,
    DocumentError,
    read_bytes,
    read_document,
    without_faults,
)
from include.policy.expectations import Suite
from include.policy.files import DATAMAP, QUALITY
from include.policy.intake import IntakeRule
from include.policy.manifests import DataMap, read_datamap
from include.policy.model import PackFile, PolicyPack
from include.policy.problems import PackError, PackProblem
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
    Targets,
)
from include.policy.section import PackNames, RuleSection, SectionRules

SHIPPED = Path(__file__).parent / "pack"
"""The shipped pack; its files stand in for those that a pack leaves out."""

RETENTION = "retention.yaml"
_WITH_DEFAULT = (
    "backup.yaml",
    "calendar.yaml",
    "controls.yaml",
    "evidence.yaml",
    "notices.yaml",
    "roles.yaml",
)
# They name collections of a company's databases, or say how its Airflow runs, so shipped files are
# no default. Neither are those of the sections.
_WITHOUT_DEFAULT = (
    "disposition.yaml",
    "intake.yaml",
    "operations.yaml",
    "purposes.yaml",
    RETENTION,
)
_YAML = (".yaml", ".yml")

_Read = TypeVar("_Read")


Sections = Sequence[RuleSection[Any]]
SectionsOf = Callable[[], Sections]
"""Returns the files of single workflows. It imports the workflows."""


@dataclass(frozen=True)
class PackContent:
    """A loaded pack beside what its files say, from which it can be built again.

    Attributes:
        pack: checked and typed.
        files: plain content of the files outside of datamap/ and quality/, by name.
        suites: database and plain content of each suite of quality/*.yaml.
    """

    pack: PolicyPack
    files: Mapping[str, Any]
    suites: Sequence[tuple[str, Any]]


def load_pack(folder: Path, sections: Sections) -> PolicyPack:
    """Read and check a policy pack.

    Only ``datamap/*.yaml`` is required. The shipped pack supplies the other files that the pack
    leaves out, except those that name collections of the company's databases (retention.yaml,
    disposition.yaml, intake.yaml, purposes.yaml, quality/*.yaml and the sections).

    Args:
        folder: the pack.
        sections: files of single workflows.

    Raises:
        PackError: the pack cannot be used; has every problem with file, line and path.
    """
    pack = read_pack(folder, sections).pack
    pack.require_sound()
    return pack


def read_pack(folder: Path, sections: Sections) -> PackContent:
    """Read and check a policy pack as `load_pack` does; return its plain content too.

    If only some data maps are faulty, the pack has their problems (`PolicyPack.faults`).

    Raises:
        PackError: another file is faulty, or every data map is, or one does not name its databases.
    """
    folder = folder.absolute()
    reader = _Reader(folder, sections)
    if not folder.is_dir():
        raise PackError(folder, [PackProblem("", None, "", "there is no such folder")])
    if not (folder / DATAMAP).is_dir():
        message = "is missing: a pack needs a data map, see docs/policy-pack.md"
        raise PackError(folder, [PackProblem(f"{DATAMAP}/", None, "", message)])
    backup = reader.section("backup.yaml", TypeAdapter(BackupRules)) or BackupRules()
    evidence = reader.section("evidence.yaml", TypeAdapter(EvidenceRules)) or EvidenceRules()
    datamap = reader.datamap(backup.defaults)
    calendar = reader.section("calendar.yaml", TypeAdapter(Calendar))
    roles = reader.items("roles.yaml", TypeAdapter(Role))
    controls = reader.items("controls.yaml", TypeAdapter(Control))
    retention = reader.items(RETENTION, TypeAdapter(RetentionRule))
    purposes = reader.items("purposes.yaml", TypeAdapter(Purpose))
    intake = reader.items("intake.yaml", TypeAdapter(IntakeRule))
    personal = {
        (database.name, collection.name, field.name)
        for database in datamap.databases.values()
        for collection in database.collections.values()
        for field in collection.fields.values()
        if field.is_personal
    }
    checks = CrossChecks(reader.documents, datamap.inventory, reader.problems, personal)
    checks.roles(roles, controls)
    checks.retention(retention)
    for loc, message in retentions.faults(retention, datamap.inventory):
        checks.add(RETENTION, loc, message)
    disposition = reader.section("disposition.yaml", TypeAdapter(Disposition)) or Disposition()
    for loc, message in retentions.approval_faults(disposition.approval, datamap.inventory):
        checks.add("disposition.yaml", loc, message)
    checks.purposes(purposes)
    for loc, message in intakes.faults(intake, datamap.inventory):
        checks.add("intake.yaml", loc, message)
    notices = reader.section("notices.yaml", TypeAdapter(NoticeRules)) or NoticeRules()
    operations = reader.section("operations.yaml", TypeAdapter(Operations)) or Operations()
    names = PackNames(
        datamap.databases, datamap.inventory, frozenset(role.id for role in roles.values())
    )
    own: dict[str, SectionRules] = {}
    for section in sections:
        rules = reader.section(section.file, TypeAdapter(section.model))
        if rules is not None:
            own[section.file] = rules
            for loc, message in section.cross_check(rules, names):
                checks.add(section.file, loc, message)
    taken = set(intakes.check_ids(intake.values(), datamap.inventory))
    suites = reader.suites(checks, reader.named("intake.yaml", "collection"), taken)
    reader.check_unknown_files()
    faults = reader.faults(datamap, checks.doubtful)
    faulty = {each.name: each for facts in datamap.faulty.values() for each in facts}
    sound = {name: each for name, each in datamap.databases.items() if name not in faults}
    if reader.problems and not (faults and sound):
        raise PackError(folder, reader.problems)
    stopped = {
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
        files=tuple(sorted(reader.files, key=lambda one: one.path)),
        databases=sound | stopped,
        faults=faults,
        controls=tuple(controls.values()),
        backup=backup,
        evidence=evidence,
        retention=tuple(retention.values()),
        disposition=disposition,
        intake=tuple(intake.values()),
        sections=own,
        calendar=calendar or Calendar(),
        notices=notices,
        operations=operations,
        roles={one.id: one for one in roles.values()},
        suites=with_unneeded(suites, tuple(purposes.values()), sound),
        purposes=tuple(purposes.values()),
        remarks=tuple(datamap.remarks),
    )
    content = {name: document.data for name, document in reader.documents.items()}
    return PackContent(
        pack,
        {name: data for name, data in content.items() if not name.startswith(f"{QUALITY}/")},
        reader.placed_suites,
    )


class _Reader:
    """One reading of one folder: what was read, and what was wrong with it."""

    def __init__(self, folder: Path, sections: Sections) -> None:
        self.folder = folder
        self.names = {*_WITH_DEFAULT, *_WITHOUT_DEFAULT, *(section.file for section in sections)}
        self.files: list[PackFile] = []
        self.problems: list[PackProblem] = []
        self.documents: dict[str, Document] = {}
        self.placed_suites: list[tuple[str, Any]] = []
        self._unreadable: dict[str, bytes] = {}

    def section(self, name: str, form: TypeAdapter[_Read]) -> _Read | None:
        """One file as its type; None when it is faulty or neither here nor shipped."""
        document = self._section_document(name)
        if document is None:
            return None
        try:
            # as JSON: strict about types, and a list is a tuple
            return form.validate_json(json.dumps(document.data), strict=True)
        except ValidationError as error:
            self.problems += document.problems(error)
            return None

    def items(self, name: str, form: TypeAdapter[_Read]) -> dict[int, _Read]:
        """The items of a file that is a list, by place; each fault of form is noted.

        So that it hides nothing that the checks between files find, a faulty item is there too,
        without what is wrong in it; one that is not even so an item is left out.
        """
        document = self._section_document(name)
        if document is None:
            return {}
        if not isinstance(document.data, list):
            self.problems.append(document.problem((), "should be a list"))
            return {}
        found = {}
        for at, item in enumerate(document.data):
            try:
                found[at] = form.validate_json(json.dumps(item), strict=True)
            except ValidationError as error:
                self.problems += document.problems(error, (at,))
                rest = without_faults(form, item, _example(name))
                if rest is not None:
                    found[at] = rest
        return found

    def named(self, file: str, key: str) -> set[str]:
        """What the items of a file say under a key, whatever else is wrong with them."""
        document = self.documents.get(file)
        items = document.data if document and isinstance(document.data, list) else []
        return {str(one[key]) for one in items if isinstance(one, dict) and key in one}

    def _section_document(self, name: str) -> Document | None:
        """A file of the pack, the shipped one in its place, or None."""
        shipped = name in _WITH_DEFAULT and not self._exists(name)
        path = (SHIPPED if shipped else self.folder) / name
        if not shipped and not self._exists(name):
            return None
        document = self._document(path, name, shipped)
        if document is not None:
            self.documents[name] = document
        return document

    def datamap(self, targets: Targets) -> DataMap:
        """The data maps, checked together."""
        paths = self._yaml_files(DATAMAP)
        if not paths:
            message = "holds no .yaml file: a pack needs a data map, see docs/policy-pack.md"
            self.problems.append(PackProblem(f"{DATAMAP}/", None, "", message))
        read = [self._document(path, f"{DATAMAP}/{path.name}", False) for path in paths]
        documents = [one for one in read if one is not None]
        datamap = read_datamap(documents, targets, self._unreadable)
        if len(documents) == len(paths) > 0 and not datamap.problems and not datamap.databases:
            message = "no file maps a database (dataset: [...])"
            self.problems.append(PackProblem(f"{DATAMAP}/", None, "", message))
        self.problems += datamap.problems
        return datamap

    def faults(
        self, datamap: DataMap, doubtful: Sequence[PackProblem]
    ) -> dict[str, tuple[PackProblem, ...]]:
        """Return the problems of faulty databases; empty if another thing is faulty too.

        Args:
            datamap: the data maps.
            doubtful: problems of other files that unreadable data maps may have caused.
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

    def suites(
        self, checks: CrossChecks, incoming: set[str], taken: set[tuple[str, str, str]]
    ) -> list[Suite]:
        """The suites of quality/, checked together; none where the pack has no such folder.

        Args:
            checks: between files.
            incoming: collections that intake.yaml names.
            taken: database, collection and id of rules that stand elsewhere.
        """
        if not self._exists(QUALITY):
            return []
        found: list[Suite] = []
        seen = set(taken)
        for path in self._yaml_files(QUALITY):
            name = f"{QUALITY}/{path.name}"
            suites = self.items(name, TypeAdapter(Suite))
            if name in self.documents:
                placed = checks.suites(name, seen, incoming)
                data = self.documents[name].data
                self.placed_suites += [(placed[at], data[at]) for at in suites if at in placed]
                found += [
                    suite.model_copy(update={"database": placed[at]})
                    for at, suite in suites.items()
                    if at in placed
                ]
        return found

    def _yaml_files(self, folder: str) -> list[Path]:
        try:
            found = list((self.folder / folder).iterdir())
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise PackError(self.folder, [PackProblem(f"{folder}/", None, "", message)]) from error
        return sorted(
            path for path in found if path.suffix in _YAML and not path.name.startswith(".")
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
        """A YAML file that nothing reads is a mistyped name until somebody says otherwise."""
        for name in self._yaml_names():
            parent, _, rest = name.partition("/")
            if name in self.names or (parent in (DATAMAP, QUALITY) and rest and "/" not in rest):
                continue
            folders = f"{DATAMAP}/*.yaml, {QUALITY}/*.yaml"
            message = f"nothing reads this file; a pack has {folders}, {_list(self.names)}"
            self.problems.append(PackProblem(name, None, "", message))

    def _yaml_names(self) -> Iterator[str]:
        for at, folders, names in os.walk(self.folder):
            folders[:] = [one for one in folders if not one.startswith(".")]
            for name in names:
                if name.lower().endswith(_YAML) and not name.startswith("."):
                    yield (Path(at) / name).relative_to(self.folder).as_posix()


def _example(name: str) -> Any:
    """The first item of the shipped file: what stands in where a required value is faulty."""
    try:
        data = read_document(read_bytes(SHIPPED / name, name), name).data
    except DocumentError:
        return None
    return data[0] if isinstance(data, list) and data else None


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
