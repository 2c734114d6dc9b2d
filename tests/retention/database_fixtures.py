"""Databases with a retention schedule from a test, without a policy pack on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys
from include.evidence.register_figures import Register
from include.notify.outbox import Run
from include.policy import PolicyPack
from include.policy.datamap import MappedDatabase
from include.policy.model import RulesByDatabase
from include.policy.retention import Disposition, RetentionRule
from include.policy.rules import Calendar
from include.retention.database import RetentionDatabase
from include.service_container import Services
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.workflow.run_context import RunContext
from tests.support.contexts import pack_of

DAG = "enforce_retention"


@dataclass(frozen=True, kw_only=True)
class RetentionServices(Services):
    """Services with one mapped database.

    Attributes:
        reader: address of the database with the login that only reads.
        writer: address of the database with the login that may delete.
        keys: HMAC keys of the erasure ledger.
    """

    reader: DatabaseAddress
    writer: DatabaseAddress
    keys: ErasureKeys

    def database(self, conn_id: str) -> DatabaseAddress:
        del conn_id
        return self.reader

    def role_database(self, conn_id: str, mapped: str) -> DatabaseAddress:
        del conn_id, mapped
        return self.writer

    @cached_property
    def erasure_keys(self) -> ErasureKeys:
        return self.keys

    def require_complete_registers(self, *registers: Register) -> None:
        """Do nothing: there are no sealed registers to compare with."""


def retention_database(
    mapped: MappedDatabase,
    rules: Sequence[RetentionRule],
    disposition: Disposition,
    *,
    reader: DatabaseAddress,
    state: Engine,
    keys: ErasureKeys,
    clock: Clock,
    writer: DatabaseAddress | None = None,
    timezone: str = "UTC",
    run_id: str = "",
    starter: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> RetentionDatabase:
    """Return a mapped database in a run of `enforce_retention`.

    Args:
        mapped: database in the data map.
        rules: record classes of the database.
        disposition: content of disposition.yaml.
        reader: address of the database with the login that only reads.
        state: the state database.
        keys: HMAC keys of the erasure ledger.
        clock: source of the current time.
        writer: address of the database with the login that may delete; by default that of the
            reader.
        timezone: timezone of the policy pack.
        run_id: id of the run.
        starter: user id of the person who started the run.
        parameters: parameters of the run.
    """
    names = [mapped.name] * len(rules)
    by_database = RulesByDatabase(names, lambda _database: tuple(rules))
    pack = pack_of({}, {}, disposition=disposition, calendar=Calendar(timezone=timezone))
    pack = pack.model_copy(update={"databases": {mapped.name: mapped}, "retention": by_database})
    services = RetentionServices(
        Path("/nonexistent"),
        pack.folder,
        lambda _conn_id: None,
        clock,
        load=lambda _folder: pack,
        open_state=state,
        reader=reader,
        writer=writer or reader,
        keys=keys,
    )
    context = RunContext(
        services, None, Run(DAG, run_id), triggered_by=starter, parameters=parameters or {}
    )
    return RetentionDatabase(context, mapped.name)


def changed(database: RetentionDatabase, **parts: Any) -> RetentionDatabase:
    """Return the database with other parts of its policy pack, such as ``retention``."""
    services: Any = database.run.services
    pack: PolicyPack = database.run.pack.model_copy(update=parts)
    services = type(services)(
        services.home, services.policy, services.lookup, services.clock,
        load=lambda _folder: pack, open_state=services.open_state,
        reader=services.reader, writer=services.writer, keys=services.keys,
    )  # fmt: skip
    run = RunContext(services, None, database.run.run, database.run.triggered_by)
    return RetentionDatabase(run, database.name)
