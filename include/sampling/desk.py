"""What the steps of `sample_audit` work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from include.evidence.ahead import FolderAhead
from include.evidence.model import StepRecord
from include.evidence.steps import steps_of
from include.policy.datamap import MappedDatabase
from include.policy.notices import NoticeRules
from include.policy.rules import Role
from include.sampling.names import STEP_AUDIT
from include.sampling.quarters import Quarter, quarter_of
from include.sampling.rules import AuditRules
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed


@dataclass(frozen=True)
class Desk:
    """The populations and the services of a run.

    Attributes:
        rules: audit.yaml.
        databases: of the data map, by name.
        readers: where each of them is, as one who reads populations.
        staff: database of the staff table and where it is; None where the pack names none.
        state: the state database.
        clock: the time.
        folder: of the run's bundle, for what is written ahead of its seal.
        timezone: of the pack.
        dag_id: of the run.
        run_id: of the run.
        policy_hash: of the policy pack.
        code_version: of ParcelSeal.
        roles: of roles.yaml, by id; owners of findings are among them.
        notices: notices.yaml.
    """

    rules: AuditRules
    databases: Mapping[str, MappedDatabase]
    readers: Mapping[str, DatabaseAddress]
    staff: tuple[MappedDatabase, DatabaseAddress] | None
    state: Engine
    clock: Clock
    folder: FolderAhead
    timezone: str
    dag_id: str
    run_id: str
    policy_hash: str
    code_version: str
    roles: Mapping[str, Role] = field(default_factory=dict)
    notices: NoticeRules = field(default_factory=NoticeRules)

    @property
    def run(self) -> tuple[str, str]:
        """Dag id and run id."""
        return self.dag_id, self.run_id

    @property
    def now(self) -> datetime:
        """The moment in the pack's timezone."""
        return self.clock.now().astimezone(self.zone)

    @property
    def zone(self) -> ZoneInfo:
        """The pack's timezone."""
        return ZoneInfo(self.timezone)

    @property
    def today(self) -> date:
        """The day it is there."""
        return self.now.date()

    def records(self) -> dict[tuple[str, str], StepRecord]:
        """What the steps of this run left, by step and part."""
        with self.state.connect() as conn:
            return {(one.step, one.part): one for one in steps_of(conn, *self.run)}

    def quarter(self) -> Quarter:
        """The quarter that this run audits.

        Raises:
            ControlFailed: the run has not said so yet.
        """
        found = self.records().get((STEP_AUDIT, ""))
        if found is None or "audit" not in found.data:
            raise ControlFailed("This run has no quarter yet.", "Run the workflow again.")
        return quarter_of(found.data["audit"], self.clock.now(), self.timezone)
