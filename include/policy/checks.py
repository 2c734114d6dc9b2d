"""What single files of a pack cannot say of themselves: names stand once and lead somewhere."""

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
from include.policy.rules import Control, Role


@dataclass
class CrossChecks:
    """Checks between the files of a pack; what is wrong goes to ``problems``.

    Attributes:
        documents: files that were read, by their path in the pack; shipped ones too.
        inventory: names of the data maps.
        problems: is added to.
        personal: database, collection and name of the personal fields, where the maps are sound.
        doubtful: problems that a data map that is no YAML may have caused.
    """

    documents: dict[str, Document]
    inventory: Inventory
    problems: list[PackProblem]
    personal: Container[tuple[str, str, object]] = ()
    doubtful: list[PackProblem] = dataclasses.field(default_factory=list)

    def roles(self, roles: Mapping[int, Role], controls: Mapping[int, Control]) -> None:
        """Ids stand once, and who owns a control is a role."""
        self._once("roles.yaml", (((at, "id"), one.id) for at, one in roles.items()))
        self._once("controls.yaml", (((at, "id"), one.id) for at, one in controls.items()))
        known = {one.id for one in roles.values()}
        for at, control in controls.items():
            if control.owner and "roles.yaml" in self.documents and control.owner not in known:
                self.add("controls.yaml", (at, "owner"), f"roles.yaml has no {control.owner!r}")

    def retention(self, rules: Mapping[int, RetentionRule]) -> None:
        """Record classes stand once and lead to collections of the data map."""
        classes = (((at, "class"), one.record_class) for at, one in rules.items())
        self._once("retention.yaml", classes)
        for at, rule in rules.items():
            self.holder("retention.yaml", (at,), rule.database, rule.collection)

    def suites(
        self, file: str, seen: set[tuple[str, str, str]], incoming: Container[str]
    ) -> dict[int, str]:
        """The databases of a file's suites, by place; those that lead nowhere are left out.

        Reads the document itself, so that a fault of form hides no name that leads nowhere.

        Args:
            file: path in the pack.
            seen: database, collection and id of the expectations of the files before; is added to.
            incoming: collections that intake.yaml names.
        """
        found = {}
        for at, suite in _mappings(self.documents[file].data):
            collection, database = suite.get("collection"), suite.get("database")
            if not isinstance(collection, str) or not isinstance(database, str | None):
                continue  # its form is wrong, and that is said
            holder = self.holder(file, (at,), database, collection)
            if not holder:
                continue
            found[at] = holder
            if suite.get("incoming") is True and collection not in incoming:
                message = "intake.yaml has no such incoming table, so that nobody would check it"
                self.add(file, (at, "incoming"), message)
            self._breakdown(file, (at, "breakdown"), holder, collection, suite.get("breakdown"))
            self._changed(file, at, holder, collection, suite)
            for number, one in _mappings(suite.get("expectations")):
                loc = (at, "expectations", number)
                self._expectation(file, (*loc, "kwargs"), holder, collection, one.get("kwargs"))
                if isinstance(name := one.get("id"), str):
                    if name.startswith("over_collected_"):
                        message = "ids that begin so are made from purposes.yaml"
                        self.add(file, (*loc, "id"), message)
                    if (holder, collection, name) in seen:
                        message = f"{collection} has a rule {name!r} already"
                        self.add(file, (*loc, "id"), message)
                    seen.add((holder, collection, name))
        return found

    def _changed(
        self, file: str, at: int, database: str, collection: str, suite: dict[str, Any]
    ) -> None:
        changed = suite.get("changed")
        if not isinstance(changed, dict):
            return
        if isinstance(column := changed.get("column"), str):
            self.field(file, (at, "changed", "column"), database, collection, column)
        if suite.get("incoming") is True:
            message = "review_intake checks whole batches: leave changed out"
            self.add(file, (at, "changed"), message)

    def purposes(self, purposes: Mapping[int, Purpose]) -> None:
        """Purposes stand once and name fields of the data map."""
        file = "purposes.yaml"
        self._once(file, (((at, "id"), one.id) for at, one in purposes.items()))
        for at, purpose in purposes.items():
            for database, collections in purpose.fields.items():
                for collection, fields in collections.items():
                    loc = (at, "fields", database)
                    if not self.holder(file, loc, database, collection, (collection,)):
                        continue
                    for number, name in enumerate(fields):
                        if not self.inventory.has_field(database, collection, name):
                            message = f"collection {collection!r} has no field {name!r}"
                            self.add(file, (*loc, collection, number), message)

    def holder(
        self,
        file: str,
        loc: Loc,
        database: str | None,
        collection: str,
        key: Loc = ("collection",),
    ) -> str | None:
        """The database that has a collection; a problem and None where there is not just one.

        Args:
            file: path in the pack.
            loc: of the rule that names it.
            database: as the rule names it, if it does.
            collection: as the rule names it.
            key: where below ``loc`` the collection is named.
        """
        holders = self.inventory.databases_with(collection)
        if database is not None and database not in self.inventory:
            at = (*loc, "database") if key == ("collection",) else loc
            self.add(file, at, f"the pack maps no database {database!r}")
        elif database in self.inventory.unreadable:
            return database
        elif not holders or (database is not None and database not in holders):
            self.add(file, (*loc, *key), f"no data map has a collection {collection!r}")
            if database is None and self.inventory.unreadable:
                self.doubtful.append(self.problems[-1])
        elif database is None and len(holders) > 1:
            message = f"several databases have it: name one as database: {', '.join(holders)}"
            self.add(file, (*loc, *key), message)
        else:
            return database or holders[0]
        return None

    def field(self, file: str, loc: Loc, database: str, collection: str, name: str) -> None:
        """A problem where the collection has no such field."""
        if not self.inventory.has_column(database, collection, name):
            self.add(file, loc, f"collection {collection!r} has no field {name!r}")

    def add(self, file: str, loc: tuple[Any, ...], message: str) -> None:
        """Note a problem at a place of a file."""
        self.problems.append(self.documents[file].problem(loc, message))

    def _expectation(
        self, file: str, loc: Loc, database: str, collection: str, kwargs: object
    ) -> None:
        if not isinstance(kwargs, dict):
            return
        for path, column in columns_in(kwargs).items():
            self.field(file, (*loc, *path), database, collection, column)
        for key in ("field", "valid_from", "retired_on"):
            if "collection" in kwargs and key in kwargs:
                self._other(file, loc, database, kwargs["collection"], key, kwargs[key])

    def _breakdown(self, file: str, loc: Loc, database: str, collection: str, by: object) -> None:
        if not isinstance(by, dict):
            return
        if isinstance(by.get("column"), str):
            self.field(file, (*loc, "column"), database, collection, by["column"])
            self._impersonal(file, (*loc, "column"), database, collection, by["column"])
        if isinstance(by.get("collection"), str) and isinstance(by.get("label"), str):
            self._other(file, loc, database, by["collection"], "label", by["label"])
            self._impersonal(file, (*loc, "label"), database, by["collection"], by["label"])

    def _impersonal(
        self, file: str, loc: Loc, database: str, collection: str, field: object
    ) -> None:
        """What a report shows as it is may not be a person's own data."""
        if (database, collection, field) in self.personal:
            self.add(file, loc, f"field {field!r} is personal, and reports would show its values")

    def _other(
        self, file: str, loc: Loc, database: str, collection: object, key: str, name: object
    ) -> None:
        """Check a field of another collection of the same database."""
        if not isinstance(collection, str) or not isinstance(name, str):
            return
        if self.inventory.has_collection(database, collection):
            self.field(file, (*loc, key), database, collection, name)
        else:
            message = f"the data map of {database} has no collection {collection!r}"
            self.add(file, (*loc, "collection"), message)

    def _once(self, file: str, keys: Iterable[tuple[Loc, str]]) -> None:
        seen: set[str] = set()
        for loc, value in keys:
            if value in seen:
                self.add(file, loc, f"{value!r} stands twice")
            seen.add(value)


def _mappings(items: object) -> Iterator[tuple[int, dict[str, Any]]]:
    for at, one in enumerate(items if isinstance(items, list) else []):
        if isinstance(one, dict):
            yield at, one
