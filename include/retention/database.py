"""A database with its retention schedule, its settings and the connections to it.

Both the steps of a run and the commands use this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.messages import Message
from include.policy.datamap import MappedDatabase
from include.policy.retention import Disposition, RetentionRule
from include.policy.rules import translated_message
from include.services.database import DatabaseAddress
from include.workflow.run_context import RunContext


@dataclass(frozen=True)
class RetentionDatabase:
    """A mapped database with its retention schedule, in a run or for a command.

    Attributes:
        run: context of the run or command.
        name: name of the database in the data map.
    """

    run: RunContext[None]
    name: str

    @property
    def run_key(self) -> tuple[str, str]:
        """The DAG id and the run id. Both are empty for a command outside of a run."""
        return self.run.run.dag_id, self.run.run.run_id

    @property
    def mapped(self) -> MappedDatabase:
        """The description of the database in the data map."""
        return self.run.database(self.name)

    @property
    def rules(self) -> Sequence[RetentionRule]:
        """The record classes of the database."""
        return self.run.pack.retention_of(self.name)

    @property
    def subject_titles(self) -> dict[str, Message]:
        """The titles of the database, the record classes and the collections, by name.

        If several of them have the same name, the database comes first, then the record class.
        Record classes without a title are left out.
        """
        collections = {} if self.mapped.is_faulty else self.mapped.collections
        titles = {collection.name: collection.title for collection in collections.values()}
        titles |= {
            rule.record_class: translated_message(rule.title) for rule in self.rules if rule.title
        }
        return titles | {self.name: self.mapped.title}

    @property
    def disposition(self) -> Disposition:
        """The settings for dispositions in disposition.yaml of the policy pack."""
        return self.run.pack.disposition

    @property
    def reader(self) -> DatabaseAddress:
        """The address of the database with the read-only login."""
        return self.run.reader(self.name)

    @property
    def writer(self) -> DatabaseAddress:
        """The address of the database with the login that may delete.

        If the database has no record classes, this is the address with the read-only login instead.
        In such a database, the login that may delete has no rights. Its connection may even lead to
        another database of the data map.
        """
        if not self.rules:
            return self.reader
        connection = self.disposition.connection
        return self.run.services.role_database(connection, self.mapped.connection)
