"""Fixtures: the database of the sample shop, and an incident in the state database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, text

from include.incident.counting import subject_list
from include.incident.incident_run import IncidentRun
from include.incident.rule_checks import INCIDENT
from include.incident.rules import ScopeRule
from include.incident.selection import Selection, check_selection
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from tests.incident.counting.shop_oracle import MOMENT, RULE, SCHEMA, SENSITIVE, SHOP, ZONE
from tests.support.contexts import run_context
from tests.support.databases import temporary_database

PACK = load_pack(SHIPPED)
RULES = PACK.require(INCIDENT).model_copy(update={"scope": (RULE,), "sensitive": SENSITIVE})
_INCIDENT = text(
    "INSERT INTO incident (number, dag_id, run_id, type, what, noticed_by, opened_by, opened_at,"
    " aware_at, selection, fingerprint, clocks, state) VALUES (:number, 'd', :number, 't', 'w',"
    " 'n', 'o', :at, :at, '{}', 'f', '[]', 'open') RETURNING id"
)


@dataclass
class ShopDatabase:
    """The database of the sample shop, with the state database.

    Attributes:
        address: address of the shop's database.
        owner: connection of the database's owner, in autocommit mode.
        state: engine of the state database.
    """

    address: DatabaseAddress
    owner: psycopg.Connection[Any]
    state: Engine

    def incident(self, number: str = "INC-2026-0001") -> int:
        """Insert an incident into the state database, and return its id."""
        with self.state.begin() as conn:
            return int(conn.scalar(_INCIDENT, {"number": number, "at": MOMENT}) or 0)

    def freeze(
        self,
        incident: int,
        version: int = 1,
        selection: Selection | None = None,
        *,
        rule: ScopeRule = RULE,
        address: DatabaseAddress | None = None,
        conn: Connection | None = None,
    ) -> int:
        """Add affected people to the stored list, and return the number of added people.

        Args:
            incident: id of the incident in the state database.
            version: version of the scope.
            selection: criteria of affected records; default: all records are affected.
            rule: rule of the shop's database in incident.yaml.
            address: address of the database; default: the database of the shop.
            conn: connection to the state database, in a transaction; default: a new connection.
        """
        arguments = (
            incident, version, check_selection(selection or Selection(), RULES), rule, SHOP,
            address or self.address,
        )  # fmt: skip
        if conn is not None:
            return subject_list.freeze_subjects(conn, *arguments, moment=MOMENT, zone=ZONE)
        with self.state.begin() as connection:
            return subject_list.freeze_subjects(connection, *arguments, moment=MOMENT, zone=ZONE)

    def context(
        self, rule: ScopeRule = RULE, address: DatabaseAddress | None = None, **pack: Any
    ) -> IncidentRun:
        """Return a run context for an incident of the shop.

        Args:
            rule: rule of the shop's database in incident.yaml.
            address: address of the database; default: the database of the shop.
            pack: attributes of `PolicyPack` with other values than in the shipped pack.
        """
        rules = RULES.model_copy(update={"scope": (rule,)})
        parts = {"databases": {"shop": SHOP}, "sections": {INCIDENT.file: rules}} | pack
        shop = {"shop": (address or self.address).conninfo()}
        run, clock = Run("respond_to_incident", "r"), FixedClock(MOMENT)
        return run_context(INCIDENT, PACK.model_copy(update=parts), shop, self.state, clock, run)


@contextmanager
def new_shop_database(postgres: EmbeddedPostgres, state: Engine) -> Iterator[ShopDatabase]:
    """Create the empty database of the shop. Drop it at the end of the with block."""
    with temporary_database(postgres) as name:
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo, autocommit=True) as owner:
            owner.execute(SCHEMA)
            yield ShopDatabase(DatabaseAddress.from_conninfo(conninfo), owner, state)
