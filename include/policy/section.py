"""Sections of a policy pack that belong to one workflow each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from include.policy.rules import Rule, Text
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.policy.datamap import MappedDatabase
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]


class SectionRules(Rule):
    """The content of a section.

    Attributes:
        connection: id of the Airflow connection with which the workflow reads mapped databases. If
            it is not configured, the workflow uses the connection of each database.
    """

    connection: Text

    @property
    def connections(self) -> tuple[str, ...]:
        """The ids of the connections with which the workflow reads mapped databases."""
        return (self.connection,)

    def connection_to(self, database: str) -> str:
        """Return the id of the connection with which the workflow reads a mapped database."""
        del database
        return self.connection


Rules = TypeVar("Rules", bound=SectionRules)


@dataclass(frozen=True)
class PackNames:
    """The names that a section may refer to.

    Attributes:
        databases: the mapped databases, by name.
        inventory: their collections and columns.
        roles: ids of roles.yaml.
    """

    databases: Mapping[str, MappedDatabase]
    inventory: Inventory
    roles: frozenset[str]


@dataclass(frozen=True)
class RuleSection(Generic[Rules]):
    """A file of the policy pack that one workflow reads; a pack may leave it out.

    Attributes:
        file: name of the file, ``partners.yaml``.
        model: type of its content.
        cross_check: yields the problems that only the rest of the pack shows, each with its
            location in the file.
        page: page of docs/ that explains the file.
    """

    file: str
    model: type[Rules]
    cross_check: Callable[[Rules, PackNames], Iterator[tuple[Loc, str]]]
    page: str

    def missing(self) -> UsageError:
        """Return the error about a pack without this file."""
        return UsageError(f"The policy pack has no {self.file}.", f"Write one: docs/{self.page}.")


def twice(place: str, key: str, names: list[str]) -> Iterator[tuple[Loc, str]]:
    """Yield a problem for each name that an earlier item of a list has too.

    Args:
        place: the list.
        key: key of the names.
        names: of the items, in order.
    """
    for number, name in enumerate(names):
        if name in names[:number]:
            yield (place, number, key), f"{name} stands twice"
