"""Reading a policy pack: all of it or none, with every problem at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from include.policy import intake as intakes
from include.policy.document import Document, DocumentError, read_bytes, read_document
from include.policy.intake import IntakeRule
from include.policy.manifests import DataMap, read_datamap
from include.policy.mapping import Inventory
from include.policy.model import PackFile, PolicyPack
from include.policy.problems import PackError, PackProblem
from include.policy.rules import BackupRules, Calendar, Control, RetentionRule, Role, Targets

SHIPPED = Path(__file__).parent / "pack"
"""The shipped pack; its files stand in for those that a pack leaves out."""

DATAMAP = "datamap"
_WITH_DEFAULT = ("backup.yaml", "calendar.yaml", "controls.yaml", "roles.yaml")
# Names collections of one company's databases, so that no shipped file can stand in for it.
_WITHOUT_DEFAULT = ("intake.yaml", "retention.yaml")
_YAML = (".yaml", ".yml")

_Read = TypeVar("_Read")


def load_pack(folder: Path) -> PolicyPack:
    """Read and check a policy pack.

    Only ``datamap/*.yaml`` has to be there. Files that the pack leaves out are read from the
    shipped pack, except ``retention.yaml``, without which nothing expires, and ``intake.yaml``,
    without which nothing is taken in.

    Args:
        folder: the pack.

    Raises:
        PackError: the pack cannot be used; has every problem with file, line and path.
    """
    folder = folder.absolute()
    reader = _Reader(folder)
    if not folder.is_dir():
        raise PackError(folder, [PackProblem("", None, "", "there is no such folder")])
    if not (folder / DATAMAP).is_dir():
        message = "is missing: a pack needs a data map, see docs/policy-pack.md"
        raise PackError(folder, [PackProblem(f"{DATAMAP}/", None, "", message)])
    backup = reader.section("backup.yaml", TypeAdapter(BackupRules)) or BackupRules()
    datamap = reader.datamap(backup.defaults)
    calendar = reader.section("calendar.yaml", TypeAdapter(Calendar))
    roles = reader.section("roles.yaml", TypeAdapter(tuple[Role, ...])) or ()
    controls = reader.section("controls.yaml", TypeAdapter(tuple[Control, ...])) or ()
    retention = reader.section("retention.yaml", TypeAdapter(tuple[RetentionRule, ...])) or ()
    intake = reader.section("intake.yaml", TypeAdapter(tuple[IntakeRule, ...])) or ()
    reader.check_roles(roles, controls)
    reader.check_retention(retention, datamap.inventory)
    reader.check_intake(intake, datamap.inventory)
    reader.check_unknown_files()
    if reader.problems:
        raise PackError(folder, reader.problems)
    return PolicyPack(
        folder=folder,
        files=tuple(sorted(reader.files, key=lambda one: one.path)),
        databases=datamap.databases,
        controls=controls,
        backup=backup,
        retention=retention,
        intake=intake,
        calendar=calendar or Calendar(),
        roles={one.id: one for one in roles},
        remarks=tuple(datamap.remarks),
    )


class _Reader:
    """One reading of one folder: what was read, and what was wrong with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[PackFile] = []
        self.problems: list[PackProblem] = []
        self._documents: dict[str, Document] = {}

    def section(self, name: str, form: TypeAdapter[_Read]) -> _Read | None:
        """One file as its type; None when it is faulty or neither here nor shipped."""
        shipped = name in _WITH_DEFAULT and not self._exists(name)
        path = (SHIPPED if shipped else self.folder) / name
        if not shipped and not self._exists(name):
            return None
        document = self._document(path, name, shipped)
        if document is None:
            return None
        self._documents[name] = document
        try:
            # as JSON: strict about types, and a list is a tuple
            return form.validate_json(json.dumps(document.data), strict=True)
        except ValidationError as error:
            self.problems += document.problems(error)
            return None

    def datamap(self, targets: Targets) -> DataMap:
        """The data maps, checked together."""
        paths = self._datamap_paths()
        if not paths:
            message = "holds no .yaml file: a pack needs a data map, see docs/policy-pack.md"
            self.problems.append(PackProblem(f"{DATAMAP}/", None, "", message))
        read = [self._document(path, f"{DATAMAP}/{path.name}", False) for path in paths]
        documents = [one for one in read if one is not None]
        datamap = read_datamap(documents, targets)
        if len(documents) == len(paths) > 0 and not datamap.problems and not datamap.databases:
            message = "no file maps a database (dataset: [...])"
            self.problems.append(PackProblem(f"{DATAMAP}/", None, "", message))
        self.problems += datamap.problems
        return datamap

    def _datamap_paths(self) -> list[Path]:
        try:
            found = list((self.folder / DATAMAP).iterdir())
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise PackError(self.folder, [PackProblem(f"{DATAMAP}/", None, "", message)]) from error
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
            return read_document(content, name)
        except DocumentError as error:
            self.problems += error.problems
            return None

    def check_roles(self, roles: tuple[Role, ...], controls: tuple[Control, ...]) -> None:
        """Ids stand once, and who owns a control is a role."""
        self._once("roles.yaml", [("id", one.id) for one in roles])
        self._once("controls.yaml", [("id", one.id) for one in controls])
        known = {one.id for one in roles}
        for at, control in enumerate(controls):
            if control.owner and "roles.yaml" in self._documents and control.owner not in known:
                self._add("controls.yaml", (at, "owner"), f"roles.yaml has no {control.owner!r}")

    def check_retention(self, rules: tuple[RetentionRule, ...], inventory: Inventory) -> None:
        """Record classes stand once and lead to fields of the data map."""
        self._once("retention.yaml", [("class", one.record_class) for one in rules])
        for at, rule in enumerate(rules):
            holders = inventory.databases_with(rule.collection)
            if rule.database is not None and rule.database not in inventory:
                message = f"the pack maps no database {rule.database!r}"
                self._add("retention.yaml", (at, "database"), message)
            elif not holders or (rule.database is not None and rule.database not in holders):
                message = f"no data map has a collection {rule.collection!r}"
                self._add("retention.yaml", (at, "collection"), message)
            elif rule.database is None and len(holders) > 1:
                message = f"several databases have it: name one as database: {', '.join(holders)}"
                self._add("retention.yaml", (at, "collection"), message)
            else:
                for column in rule.clock:
                    if not inventory.has_column(
                        rule.database or holders[0], rule.collection, column
                    ):
                        message = f"collection {rule.collection!r} has no field {column!r}"
                        self._add("retention.yaml", (at, "clock"), message)

    def check_intake(self, rules: tuple[IntakeRule, ...], inventory: Inventory) -> None:
        """Incoming tables, their people and targets are in the data map."""
        for loc, message in intakes.faults(rules, inventory):
            self._add("intake.yaml", loc, message)

    def check_unknown_files(self) -> None:
        """A YAML file that nothing reads is a mistyped name until somebody says otherwise."""
        known = {*_WITH_DEFAULT, *_WITHOUT_DEFAULT}
        for name in self._yaml_names():
            parent, _, rest = name.partition("/")
            if name not in known and not (parent == DATAMAP and rest and "/" not in rest):
                message = f"nothing reads this file; a pack has {DATAMAP}/*.yaml, {_list(known)}"
                self.problems.append(PackProblem(name, None, "", message))

    def _yaml_names(self) -> Iterator[str]:
        for at, folders, names in os.walk(self.folder):
            folders[:] = [one for one in folders if not one.startswith(".")]
            for name in names:
                if name.lower().endswith(_YAML) and not name.startswith("."):
                    yield (Path(at) / name).relative_to(self.folder).as_posix()

    def _once(self, file: str, keys: list[tuple[str, str]]) -> None:
        seen: set[str] = set()
        for at, (key, value) in enumerate(keys):
            if value in seen:
                self._add(file, (at, key), f"{value!r} stands twice")
            seen.add(value)

    def _add(self, file: str, loc: tuple[Any, ...], message: str) -> None:
        self.problems.append(self._documents[file].problem(loc, message))


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
