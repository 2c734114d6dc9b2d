"""Checks across the files of a policy pack.

The checks ensure that names are unique, and that each name to which a file refers exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from include.policy.document import Document, Loc
from include.policy.expectations import columns_in
from include.policy.mapping import Inventory
from include.policy.problems import PackProblem
from include.policy.purposes import Purpose
from include.policy.retention import RetentionRule
from include.policy.rules import LANGUAGES, Control, FindingRules, Role


@dataclass
class CrossChecks:
    """Checks across the files of a policy pack. Each check adds its problems to ``problems``.

    Attributes:
        documents: files that were read, by path in the pack; includes files shipped with
            ParcelSeal.
        inventory: names in the data maps.
        problems: list to which the checks add problems.
        personal: each personal field in valid data maps, as database, collection and field name.
        doubtful: the part of `problems` that may be wrong, because a data map could not be read.
    """

    documents: dict[str, Document]
    inventory: Inventory
    problems: list[PackProblem]
    personal: Container[tuple[str, str, object]] = ()
    doubtful: list[PackProblem] = dataclasses.field(default_factory=list)

    def check_roles(self, roles: Mapping[int, Role], controls: Mapping[int, Control]) -> None:
        """Check that role ids and control ids are unique, and that each control owner is a role.

        Args:
            roles: roles of roles.yaml, by position in the file.
            controls: controls of controls.yaml, by position in the file.
        """
        self._check_unique("roles.yaml", (((at, "id"), role.id) for at, role in roles.items()))
        control_ids = (((at, "id"), control.id) for at, control in controls.items())
        self._check_unique("controls.yaml", control_ids)
        role_ids = {role.id for role in roles.values()}
        for at, control in controls.items():
            if control.owner and "roles.yaml" in self.documents and control.owner not in role_ids:
                message = f"roles.yaml has no {control.owner!r}"
                self.add_problem("controls.yaml", (at, "owner"), message)

    def check_finding_roles(self, rules: FindingRules, roles: Mapping[int, Role]) -> None:
        """Check that findings.yaml names roles of roles.yaml. Without the file, nothing is checked.

        Args:
            rules: rules of findings.yaml.
            roles: roles of roles.yaml, by position in the file.
        """
        if "findings.yaml" not in self.documents or "roles.yaml" not in self.documents:
            return
        role_ids = {role.id for role in roles.values()}
        for key in ("reassign", "accept_risk"):
            for at, role in enumerate(getattr(rules, key)):
                if role not in role_ids:
                    message = f"roles.yaml has no {role!r}"
                    self.add_problem("findings.yaml", (key, at), message)

    def check_clause_titles(self, controls: Mapping[int, Control]) -> None:
        """Check that no two controls state different titles for the same clause.

        Args:
            controls: controls of controls.yaml, by position in the file.
        """
        titles: dict[str, dict[str, str]] = {}
        for at, control in controls.items():
            if control.clause_title is None:
                continue
            first = titles.setdefault(control.clause, control.clause_title)
            for language in LANGUAGES:
                if control.clause_title[language] != first[language]:
                    message = (
                        f"another control of clause {control.clause} states {first[language]!r} "
                        f"in {language}"
                    )
                    self.add_problem("controls.yaml", (at, "clause_title"), message)
                    break

    def check_retention(self, rules: Mapping[int, RetentionRule]) -> None:
        """Check that names of record classes are unique, and that their collections exist.

        Args:
            rules: rules of retention.yaml, by position in the file.
        """
        classes = (((at, "class"), rule.record_class) for at, rule in rules.items())
        self._check_unique("retention.yaml", classes)
        for at, rule in rules.items():
            self.find_database("retention.yaml", (at,), rule.database, rule.collection)

    def check_suites(
        self, file: str, rule_ids: set[tuple[str, str, str]], incoming: Container[str]
    ) -> dict[int, str]:
        """Check the names and ids in the suites of a file.

        Collections and columns have to exist, and ids of expectations have to be unique.

        The check reads the unvalidated content of the file, so it reports wrong names even in an
        invalid suite.

        Args:
            file: path of the file in the pack.
            rule_ids: database, collection and id of the expectations in files that were already
                checked, and of the checks in intake.yaml. The function adds the expectations of
                this file.
            incoming: collections that intake.yaml names.

        Returns:
            The database of each suite, by the position of the suite in the file. A suite is left
            out if its collection does not exist.
        """
        databases = {}
        for at, suite in _mappings(self.documents[file].data):
            collection, named_database = suite.get("collection"), suite.get("database")
            if not isinstance(collection, str) or not isinstance(named_database, str | None):
                continue  # the validation of the suite reports values of other types
            database = self.find_database(file, (at,), named_database, collection)
            if not database:
                continue
            databases[at] = database
            if suite.get("incoming") is True and collection not in incoming:
                message = "intake.yaml has no such incoming table, so its records are never checked"
                self.add_problem(file, (at, "incoming"), message)
            breakdown_loc = (at, "breakdown")
            self._check_breakdown(file, breakdown_loc, database, collection, suite.get("breakdown"))
            self._check_change_column(file, at, database, collection, suite)
            for number, expectation in _mappings(suite.get("expectations")):
                loc = (at, "expectations", number)
                kwargs = expectation.get("kwargs")
                self._check_kwargs(file, (*loc, "kwargs"), database, collection, kwargs)
                if isinstance(name := expectation.get("id"), str):
                    if name.startswith("over_collected_"):
                        message = "ids with this prefix are reserved for rules of purposes.yaml"
                        self.add_problem(file, (*loc, "id"), message)
                    if (database, collection, name) in rule_ids:
                        message = f"{collection} has a rule {name!r} already"
                        self.add_problem(file, (*loc, "id"), message)
                    rule_ids.add((database, collection, name))
        return databases

    def _check_change_column(
        self, file: str, at: int, database: str, collection: str, suite: dict[str, Any]
    ) -> None:
        changed = suite.get("changed")
        if not isinstance(changed, dict):
            return
        if isinstance(column := changed.get("column"), str):
            self.check_field(file, (at, "changed", "column"), database, collection, column)
        if suite.get("incoming") is True:
            message = "review_intake checks whole batches: remove changed"
            self.add_problem(file, (at, "changed"), message)

    def check_purposes(self, purposes: Mapping[int, Purpose]) -> None:
        """Check that ids of purposes are unique, and that the fields of the purposes exist.

        Args:
            purposes: purposes of purposes.yaml, by position in the file.
        """
        file = "purposes.yaml"
        self._check_unique(file, (((at, "id"), purpose.id) for at, purpose in purposes.items()))
        for at, purpose in purposes.items():
            for database, collections in purpose.fields.items():
                for collection, fields in collections.items():
                    loc = (at, "fields", database)
                    if not self.find_database(file, loc, database, collection, (collection,)):
                        continue
                    for number, name in enumerate(fields):
                        if not self.inventory.has_field(database, collection, name):
                            message = f"collection {collection!r} has no field {name!r}"
                            self.add_problem(file, (*loc, collection, number), message)

    def find_database(
        self,
        file: str,
        loc: Loc,
        database: str | None,
        collection: str,
        key: Loc = ("collection",),
    ) -> str | None:
        """Return the database of a collection that a rule names.

        If the database or the collection does not exist, or if several databases have the
        collection, add a problem and return None.

        Args:
            file: path of the file in the pack.
            loc: path of the rule in the file.
            database: database that the rule names, or None if it names none.
            collection: collection that the rule names.
            key: path of the collection's name below ``loc``.
        """
        databases = self.inventory.databases_with(collection)
        if database is not None and database not in self.inventory:
            at = (*loc, "database") if key == ("collection",) else loc
            self.add_problem(file, at, f"the pack maps no database {database!r}")
        elif database in self.inventory.unreadable:
            return database
        elif not databases or (database is not None and database not in databases):
            self.add_problem(file, (*loc, *key), f"no data map has a collection {collection!r}")
            if database is None and self.inventory.unreadable:
                self.doubtful.append(self.problems[-1])
        elif database is None and len(databases) > 1:
            message = f"several databases have it: name one as database: {', '.join(databases)}"
            self.add_problem(file, (*loc, *key), message)
        else:
            return database or databases[0]
        return None

    def check_field(self, file: str, loc: Loc, database: str, collection: str, name: str) -> None:
        """Add a problem if a collection does not have a field.

        Args:
            file: path of the file in the pack.
            loc: path, in the file, of the name of the field.
            database: database of the collection.
            collection: name of the collection.
            name: name of the field.
        """
        if not self.inventory.has_column(database, collection, name):
            self.add_problem(file, loc, f"collection {collection!r} has no field {name!r}")

    def add_problem(self, file: str, loc: tuple[Any, ...], message: str) -> None:
        """Add a problem to ``problems``.

        Args:
            file: path of the file in the pack.
            loc: path, in the file, of the value that causes the problem.
            message: description of the problem.
        """
        self.problems.append(self.documents[file].problem(loc, message))

    def _check_kwargs(
        self, file: str, loc: Loc, database: str, collection: str, kwargs: object
    ) -> None:
        if not isinstance(kwargs, dict):
            return
        for path, column in columns_in(kwargs).items():
            self.check_field(file, (*loc, *path), database, collection, column)
        for key in ("field", "valid_from", "retired_on"):
            if "collection" in kwargs and key in kwargs:
                self._check_other_collection(
                    file, loc, database, kwargs["collection"], key, kwargs[key]
                )

    def _check_breakdown(
        self, file: str, loc: Loc, database: str, collection: str, breakdown: object
    ) -> None:
        if not isinstance(breakdown, dict):
            return
        column, label = breakdown.get("column"), breakdown.get("label")
        other = breakdown.get("collection")
        if isinstance(column, str):
            self.check_field(file, (*loc, "column"), database, collection, column)
            self._check_not_personal(file, (*loc, "column"), database, collection, column)
        if isinstance(other, str) and isinstance(label, str):
            self._check_other_collection(file, loc, database, other, "label", label)
            self._check_not_personal(file, (*loc, "label"), database, other, label)

    def _check_not_personal(
        self, file: str, loc: Loc, database: str, collection: str, field: object
    ) -> None:
        """Add a problem if a field is personal, because reports would show its values.

        Args:
            file: path of the file in the pack.
            loc: path, in the file, of the name of the field.
            database: database of the collection.
            collection: name of the collection.
            field: name of the field, as written in the file.
        """
        if (database, collection, field) in self.personal:
            self.add_problem(
                file, loc, f"field {field!r} is personal, and reports would show its values"
            )

    def _check_other_collection(
        self, file: str, loc: Loc, database: str, collection: object, key: str, name: object
    ) -> None:
        """Add a problem if the other collection or field that a rule names does not exist.

        Args:
            file: path of the file in the pack.
            loc: path of the rule in the file.
            database: database of both collections.
            collection: name of the other collection, as written in the file.
            key: key in the rule whose value is the name of the field, such as ``label``.
            name: name of the field, as written in the file.
        """
        if not isinstance(collection, str) or not isinstance(name, str):
            return
        if self.inventory.has_collection(database, collection):
            self.check_field(file, (*loc, key), database, collection, name)
        else:
            message = f"the data map of {database} has no collection {collection!r}"
            self.add_problem(file, (*loc, "collection"), message)

    def _check_unique(self, file: str, values: Iterable[tuple[Loc, str]]) -> None:
        previous: set[str] = set()
        for loc, value in values:
            if value in previous:
                self.add_problem(file, loc, f"{value!r} occurs twice")
            previous.add(value)


def _mappings(items: object) -> Iterator[tuple[int, dict[str, Any]]]:
    for at, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield at, item
