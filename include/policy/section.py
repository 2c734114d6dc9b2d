"""Sections of a policy pack: files that only a single workflow reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from include.policy.rules import Rule, Text
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.policy.datamap import MappedDatabase
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]


class SectionRules(Rule):
    """Base class for the content of a pack file that only a single workflow reads.

    Attributes:
        connection: Id of the Airflow connection with which the workflow reads mapped databases. If
            this connection does not exist, the workflow uses the connections that the data maps
            name.
    """

    connection: Text

    @property
    def connections(self) -> tuple[str, ...]:
        """Return the ids of the connections with which the workflow reads mapped databases."""
        return (self.connection,)

    def connection_to(self, database: str) -> str:
        """Return the id of the connection with which the workflow reads a mapped database.

        Args:
            database: name of the database.
        """
        del database
        return self.connection


Rules = TypeVar("Rules", bound=SectionRules)


@dataclass(frozen=True)
class PackNames:
    """The names in a policy pack that a section may use.

    Attributes:
        databases: mapped databases, by name.
        inventory: names in the data maps.
        roles: ids of the roles in roles.yaml.
        company: name of the company in company.yaml, by language; None if the pack has no such
            file.
    """

    databases: Mapping[str, MappedDatabase]
    inventory: Inventory
    roles: frozenset[str]
    company: Mapping[str, str] | None = None


@dataclass(frozen=True)
class RuleSection(Generic[Rules]):
    """The declaration of a pack file that only a single workflow reads. A pack may lack the file.

    Attributes:
        file: name of the file, such as ``partners.yaml``.
        model: class of the file's content.
        cross_check: function that compares the content with other files of the pack, and yields the
            path and message of each problem.
        page: page of docs/ that explains the file.
    """

    file: str
    model: type[Rules]
    cross_check: Callable[[Rules, PackNames], Iterator[tuple[Loc, str]]]
    page: str

    def missing(self) -> UsageError:
        """Return the error for a pack that does not have this file."""
        return UsageError(
            f"The policy pack has no {self.file}.",
            f"Write one: docs/reference/policy-pack/{Path(self.file).stem}.md.",
        )


def find_duplicates(list_key: str, key: str, names: list[str]) -> Iterator[tuple[Loc, str]]:
    """Yield a problem for each item whose name an earlier item of the same list already has.

    Args:
        list_key: key of the list in the file.
        key: key of the name in each item.
        names: names of the items, in order.

    Yields:
        Path of the repeated name in the file, and a message.
    """
    for number, name in enumerate(names):
        if name in names[:number]:
            yield (list_key, number, key), f"{name} occurs twice"
