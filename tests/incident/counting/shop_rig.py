"""The shop with an incident in the state database, and a desk to work on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, text

from include.incident.counting import subjects
from include.incident.incident_run import IncidentRun
from include.incident.rule_checks import INCIDENT
from include.incident.rules import ScopeRule
from include.incident.selection import Selection, checked
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from tests.incident.counting.shop import MOMENT, RULE, SCHEMA, SENSITIVE, SHOP, ZONE
from tests.support.contexts import run_context
from tests.support.databases import fresh

PACK = load_pack(SHIPPED)
RULES = PACK.require(INCIDENT).model_copy(update={"scope": (RULE,), "sensitive": SENSITIVE})
_INCIDENT = text(
    "INSERT INTO incident (number, dag_id, run_id, type, what, noticed_by, opened_by, opened_at,"
    " aware_at, selection, fingerprint, clocks, state) VALUES (:number, 'd', :number, 't', 'w',"
    " 'n', 'o', :at, :at, '{}', 'f', '[]', 'open') RETURNING id"
)


@dataclass
class Rig:
    """The shop and the state database.

    Attributes:
        address: of the shop.
        owner: of it, in autocommit.
        state: the state database.
    """

    address: DatabaseAddress
    owner: psycopg.Connection[Any]
    state: Engine

    def incident(self, number: str = "INC-2026-0001") -> int:
        """Enter an incident; its id."""
        with self.state.begin() as conn:
            return int(conn.scalar(_INCIDENT, {"number": number, "at": MOMENT}) or 0)

    def freeze(
        self,
        incident: int,
        version: int = 1,
        said: Selection | None = None,
        *,
        rule: ScopeRule = RULE,
        address: DatabaseAddress | None = None,
        conn: Connection | None = None,
    ) -> int:
        """Freeze who is affected; how many of them are new."""
        given = (
            incident, version, checked(said or Selection(), RULES), rule, SHOP,
            address or self.address,
        )  # fmt: skip
        if conn is not None:
            return subjects.freeze(conn, *given, moment=MOMENT, zone=ZONE)
        with self.state.begin() as made:
            return subjects.freeze(made, *given, moment=MOMENT, zone=ZONE)

    def context(
        self, rule: ScopeRule = RULE, address: DatabaseAddress | None = None, **pack: Any
    ) -> IncidentRun:
        """The context of the incidents of the shop; ``pack`` are other parts of the policy pack."""
        rules = RULES.model_copy(update={"scope": (rule,)})
        parts = {"databases": {"shop": SHOP}, "sections": {INCIDENT.file: rules}} | pack
        shop = {"shop": (address or self.address).conninfo()}
        run, clock = Run("respond_to_incident", "r"), FixedClock(MOMENT)
        return run_context(INCIDENT, PACK.model_copy(update=parts), shop, self.state, clock, run)


@contextmanager
def new_rig(postgres: EmbeddedPostgres, state: Engine) -> Iterator[Rig]:
    """Make the empty shop."""
    with fresh(postgres) as name:
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo, autocommit=True) as owner:
            owner.execute(SCHEMA)
            yield Rig(DatabaseAddress.from_conninfo(conninfo), owner, state)
