"""Services and run contexts that use the databases of a test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine

from include.backup.offsite import Offsite
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy import PolicyPack
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules, Calendar
from include.policy.section import Rules, RuleSection, SectionRules
from include.service_container import Services
from include.services.clock import Clock
from include.services.connections import ConnectionSpec
from include.workflow.run_context import RunContext, context_of
from include.workflow.step import Step


def connection(conn_id: str, conninfo: str, **extra: Any) -> ConnectionSpec:
    """Return an Airflow connection with the settings of a PostgreSQL connection string."""
    parts = conninfo_to_dict(conninfo)
    return ConnectionSpec(
        conn_id=conn_id,
        conn_type="postgres",
        host=str(parts["host"]),
        port=int(parts["port"]) if parts.get("port") else None,
        login=str(parts["user"]),
        password=str(parts.get("password") or ""),
        schema=str(parts["dbname"]),
        extra=extra,
    )


def services_of(
    pack: PolicyPack, databases: Mapping[str, str], state: Engine, clock: Clock
) -> Services:
    """Return services that use the given databases.

    Args:
        pack: the policy pack.
        databases: connection strings, by name of the database in the data map.
        state: the state database.
        clock: source of the current time.
    """
    specs = {
        pack.databases[name].connection: connection(pack.databases[name].connection, conninfo)
        for name, conninfo in databases.items()
    }
    return Services(
        Path("/nonexistent"), pack.folder, specs.get, clock, load=lambda _: pack, open_state=state
    )


def run_context(
    section: RuleSection[Rules],
    pack: PolicyPack,
    databases: Mapping[str, str],
    state: Engine,
    clock: Clock,
    run: Run,
) -> RunContext[Rules]:
    """Return the context of a run with services as from `services_of`."""
    return context_of(section, services_of(pack, databases, state, clock), run)


def pack_of(
    databases: Mapping[str, str], sections: Mapping[str, SectionRules], **more: Any
) -> PolicyPack:
    """Return a policy pack whose mapped databases have no collections.

    Args:
        databases: connection id, by name of the database.
        sections: sections of single workflows, by file name.
        more: other parts of the pack, by attribute.
    """
    mapped = {
        name: MappedDatabase(
            name=name, title=verbatim(name), connection=connection, schema_name="public",
            rto=timedelta(hours=1), rpo=timedelta(hours=1), collections={},
        )
        for name, connection in databases.items()
    }  # fmt: skip
    parts = {"calendar": Calendar(), "controls": (), "roles": {}, "retention": ()} | more
    return PolicyPack(
        folder=Path("/nonexistent"),
        files=(),
        databases=mapped,
        backup=BackupRules(),
        sections=sections,
        **parts,
    )


def step_record(step: Step[Rules, Any], run: RunContext[Rules], part: str = "") -> StepRecord:
    """Run a step as a task of the workflow does, and return its record."""
    findings = StepFindings(step.name, step.clause, part)
    return findings.record(step.work(run, findings))


def services_stub(
    databases: Mapping[str, MappedDatabase], state: Engine | None, clock: Clock, **services: Any
) -> Any:
    """Return services for steps whose workflow has no section in the policy pack.

    Args:
        databases: databases of the data map, by name.
        state: the state database.
        clock: source of the current time.
        services: other services, by name; ``rules`` are those of backup.yaml.
    """
    pack = SimpleNamespace(
        databases=databases,
        database=lambda name: databases[name],
        backup=services.pop("rules", BackupRules()),
        calendar=Calendar(),
        retention_of=lambda _name: (),
    )
    defaults: dict[str, Any] = {
        "require_complete_registers": lambda *_registers: None,
        "is_local": lambda _connection: False,
        "routes": list,
    }
    return SimpleNamespace(**defaults | {"pack": pack, "state": state, "clock": clock} | services)


def offsite_services(offsite: Offsite) -> dict[str, Any]:
    """Return the services, by name, from which `offsite_of` builds a given off-site store."""
    return {
        "store": lambda _connection: offsite.store,
        "recipients": lambda: (offsite.recipients, offsite.unreadable),
        "manifest_signer": offsite.signer,
        "trusted_for_manifests": offsite.trusted,
        "connection": lambda conn_id: ConnectionSpec(
            conn_id, "fs", extra={} if offsite.may_delete else {"may_delete": "false"}
        ),
    }
