"""The rules and services of a workflow, in a run or for a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from include.evidence.folder import bundle_path
from include.evidence.ledger import LedgerRow
from include.evidence.model import StepRecord
from include.evidence.step_findings import (
    Result,
    UnsealedFolder,
    artifacts_of,
    keep_artifact,
    steps_of,
)
from include.messages import Message, in_english
from include.notify.outbox import Run
from include.policy import PolicyPack
from include.policy.datamap import MappedDatabase
from include.policy.rules import Control, NoticeRules, Role
from include.policy.section import Rules, RuleSection, SectionRules
from include.reports.conclusion import Conclusion
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, ServiceError
from include.workdays.calendar import Workdays
from include.workflow.run_records import RecordedTask, RunRecords
from include.workplace import Workplace


@dataclass(frozen=True)
class PartnerIncident:
    """An incident at a partner.

    Attributes:
        partner: number of the partner.
        incident: number of the incident.
        because: what happened, in plain words.
        by: who opened the incident.
        at: when it was opened.
    """

    partner: str
    incident: str
    because: str
    by: str
    at: datetime


@dataclass(frozen=True)
class PartnerReaction:
    """What a workflow did about an incident at a partner.

    Attributes:
        review: number of the security review that was opened again; None if none was.
        words: for the timeline of the incident.
    """

    review: int | None
    words: Message


OUTSIDE_OF_RUNS = Run("", "")
RunRules = TypeVar("RunRules", bound=SectionRules | None)


class NotEnded(ServiceError):
    """A step of this run began again and has not ended; the task that needs it is repeated."""


class InterimSeal(Protocol):
    """Seals a bundle of its own while the run goes on."""

    def __call__(
        self,
        workflow: str,
        conclusion: Conclusion,
        files: Mapping[str, bytes],
        *,
        records: Sequence[StepRecord] = (),
        pdf: bool = True,
    ) -> LedgerRow:
        """Seal the files before the run's next step; the first bundle of a run stands.

        Args:
            workflow: id under which the bundle is sealed, one of `Workflow.interim_bundles`.
            conclusion: of the bundle.
            files: of the bundle, by name.
            records: steps in its ``result.json``.
            pdf: whether its report is a PDF too, which takes time.
        """
        ...


def _no_interim_seal(*_: Any, **__: Any) -> LedgerRow:
    raise AssertionError("only a run seals bundles")


@dataclass(frozen=True)
class TaskState:
    """The Airflow task that does a step. The defaults are for code outside of a run.

    Attributes:
        is_repeated: whether an earlier try of the task began.
        is_last_try: whether no further try follows if this one fails.
        triggered_at: when the run was triggered; None outside of a run.
        started_at: when the run was started; None outside of a run.
        confirm_open: raises if the run was sealed meanwhile; call it before a commit elsewhere.
        seal_interim: see `InterimSeal`.
        find_interim: returns the ledger's row of an interim bundle of this run by its workflow id,
            after its seal was completed; None if there is none.
        on_partner_incident: calls the workflow that declares `Workflow.on_partner_incident`, in a
            transaction of the state database; returns None if no workflow declares it.
    """

    is_repeated: bool = False
    is_last_try: bool = False
    triggered_at: datetime | None = None
    started_at: datetime | None = None
    confirm_open: Callable[[], None] = lambda: None
    seal_interim: InterimSeal = _no_interim_seal
    find_interim: Callable[[str], LedgerRow | None] = lambda _workflow: None
    on_partner_incident: Callable[[Connection, PartnerIncident], PartnerReaction | None] = (
        lambda _conn, _incident: None
    )


@dataclass(frozen=True)
class RunContext(Generic[RunRules]):
    """The rules and services that the steps of a run use.

    Commands and checks outside of a run use it too; then `run` is empty.

    Attributes:
        services: connections, stores, state database and clock.
        rules: the workflow's own section of the policy pack; None if it has none.
        run: dag id and run id.
        triggered_by: user id of the person who started the run; None for a scheduled run.
        parameters: of the run.
        task: the task that does the step.
    """

    services: Workplace
    rules: RunRules
    run: Run = OUTSIDE_OF_RUNS
    triggered_by: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    task: TaskState = field(default_factory=TaskState)

    @property
    def pack(self) -> PolicyPack:
        """The policy pack."""
        return self.services.pack

    @property
    def state(self) -> Engine:
        """The state database."""
        return self.services.state

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.services.clock

    @property
    def zone(self) -> ZoneInfo:
        """The policy pack's timezone."""
        return self.pack.calendar.zone

    @property
    def now(self) -> datetime:
        """The present moment in the policy pack's timezone."""
        return self.clock.now().astimezone(self.zone)

    @property
    def today(self) -> date:
        """Today's date in the policy pack's timezone."""
        return self.now.date()

    @property
    def roles(self) -> Mapping[str, Role]:
        """The roles of roles.yaml, by id."""
        return self.pack.roles

    @property
    def notices(self) -> NoticeRules:
        """The rules of notices.yaml."""
        return self.pack.notices

    @cached_property
    def workdays(self) -> Workdays:
        """The workdays of calendar.yaml."""
        return Workdays(self.pack.calendar)

    @property
    def controls(self) -> tuple[Control, ...]:
        """The controls whose evidence are the bundles of this run's workflow."""
        return self.pack.controls_of(self.run.dag_id)

    @property
    def wanted_databases(self) -> list[str]:
        """The names of the databases that the run works on: all mapped ones, or those asked for."""
        return list(self.parameters.get("databases") or self.pack.databases)

    @property
    def unsealed_folder(self) -> UnsealedFolder:
        """The folder of the run's bundle, for large files that are written before its seal."""
        started_at = self.task.started_at or self.clock.now()
        bundle = bundle_path(self.run.dag_id, self.run.run_id, started_at)
        return UnsealedFolder(self.services.store("evidence_store"), bundle)

    def records(self) -> RunRecords:
        """Return the records and files that the steps of this run left until now."""
        key = self.run.dag_id, self.run.run_id
        with self.state.connect() as conn:
            return RunRecords(steps_of(conn, *key), artifacts_of(conn, *key))

    def require(self, step: RecordedTask[Result], part: str = "") -> Result:
        """Return the result of an earlier step of this run.

        Raises:
            ControlFailed: the step has no record.
            NotEnded: the step began again and has not ended.
        """
        with self.state.connect() as conn:
            records = RunRecords(steps_of(conn, self.run.dag_id, self.run.run_id))
        title = in_english(step.title_of(part))
        if records.find(step.name, part) is None:
            raise ControlFailed(f"{title} is missing in this run.", "Run the workflow again.")
        result = records.result(step, part)
        if result is None:
            raise NotEnded(f"{title} has not ended.", "The task is repeated.")
        return result

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file for the run's bundle, in place of an earlier one of that name.

        Raises:
            UsageError: the name cannot be a file of a bundle.
        """
        with self.state.begin() as conn:
            keep_artifact(conn, self.run.dag_id, self.run.run_id, name, content)

    def database(self, name: str) -> MappedDatabase:
        """The mapped database of that name; raises UsageError if the pack maps none."""
        return self.pack.database(name)

    def reader(self, name: str) -> DatabaseAddress:
        """The address of a mapped database with the login of this workflow."""
        mapped = self.database(name).connection
        if self.rules is None:
            return self.services.database(mapped)
        return self.services.role_database(self.rules.connection_to(name), mapped)


def context_of(
    section: RuleSection[Rules], services: Workplace, run: Run = OUTSIDE_OF_RUNS
) -> RunContext[Rules]:
    """Return the context of a workflow.

    Args:
        section: the workflow's own section of the policy pack.
        services: of the command or task.
        run: dag id and run id; by default outside of a run.

    Raises:
        UsageError: the pack leaves the section out.
    """
    return RunContext(services, services.pack.require(section), run)
