"""A mapped database under the retention schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.policy.datamap import MappedDatabase
from include.policy.retention import Disposition, RetentionRule
from include.services.database import DatabaseAddress
from include.workflow.run_context import RunContext


@dataclass(frozen=True)
class RetentionDatabase:
    """A mapped database under the retention schedule, in a run or for a command.

    Attributes:
        run: the context.
        name: of the database in the data map.
    """

    run: RunContext[None]
    name: str

    @property
    def run_key(self) -> tuple[str, str]:
        """Dag id and run id; empty outside of a run."""
        return self.run.run.dag_id, self.run.run.run_id

    @property
    def mapped(self) -> MappedDatabase:
        """The database in the data map."""
        return self.run.database(self.name)

    @property
    def rules(self) -> Sequence[RetentionRule]:
        """Its record classes."""
        return self.run.pack.retention_of(self.name)

    @property
    def disposition(self) -> Disposition:
        """The rules of disposition.yaml."""
        return self.run.pack.disposition

    @property
    def reader(self) -> DatabaseAddress:
        """The database with the login that reads."""
        return self.run.reader(self.name)

    @property
    def writer(self) -> DatabaseAddress:
        """The database with the login that may delete.

        Without record classes it is the login that reads: the login that may delete has no rights
        there, and may lead to another database of the data map.
        """
        if not self.rules:
            return self.reader
        connection = self.disposition.connection
        return self.run.services.role_database(connection, self.mapped.connection)
