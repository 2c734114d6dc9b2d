"""The rules and services of a workflow, for the steps of a run or for a command."""

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
from include.policy.rules import Control, NotificationRules, Role
from include.policy.section import Rules, RuleSection, SectionRules
from include.reports.conclusion import Conclusion
from include.service_container import Services
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, ServiceError
from include.workdays.calendar import Workdays
from include.workflow.run_records import RecordedTask, RunRecords


@dataclass(frozen=True)
class PartnerIncident:
    """An incident at a partner, as it is passed to the workflow that reviews partners.

    Attributes:
        partner: number of the partner.
        incident: number of the incident.
        description: description of what happened.
        by: user id of the person who opened the incident.
        at: when the incident was opened.
    """

    partner: str
    incident: str
    description: str
    by: str
    at: datetime


@dataclass(frozen=True)
class PartnerReaction:
    """The reaction of a workflow to an incident at a partner, such as a reopened review.

    Attributes:
        review: number of the security review that was reopened; None if no review was reopened.
        words: text for the timeline of the incident.
    """

    review: int | None
    words: Message


OUTSIDE_OF_RUNS = Run("", "")
RunRules = TypeVar("RunRules", bound=SectionRules | None)


class NotEnded(ServiceError):
    """Raised when a task needs the result of a step that was started again and has not ended.

    Airflow retries the task that needs the result.
    """


class InterimSeal(Protocol):
    """The type of the function that seals an interim bundle during a run."""

    def __call__(
        self,
        workflow: str,
        conclusion: Conclusion,
        files: Mapping[str, bytes],
        *,
        records: Sequence[StepRecord] = (),
        pdf: bool = True,
    ) -> LedgerRow:
        """Seal files in an interim bundle, or return the bundle that the run has already sealed.

        A run seals at most one interim bundle under a workflow id.

        Args:
            workflow: workflow id under which the bundle is sealed, one of
                `Workflow.interim_bundles`.
            conclusion: outcome, findings and report of the bundle.
            files: files of the bundle: name -> content.
            records: step records in the bundle's ``result.json``.
            pdf: whether the report is also rendered as PDF, which takes time.

        Returns:
            The bundle's row in the evidence ledger.
        """
        ...


def _no_interim_seal(*_: Any, **__: Any) -> LedgerRow:
    raise AssertionError("only a run seals bundles")


@dataclass(frozen=True)
class TaskState:
    """The Airflow task that executes a step. The default values are for code outside of a run.

    Attributes:
        is_repeated: whether this is a second or later attempt of the task.
        is_last_try: whether Airflow will not retry the task if this attempt fails.
        triggered_at: when the run was triggered; None outside of a run.
        started_at: when the run was started; None outside of a run.
        confirm_open: raises an error if the run was sealed while the step worked. A step must call
            it before a commit to another database than the state database.
        seal_interim: seals an interim bundle, see `InterimSeal`.
        find_interim: receives the workflow id of an interim bundle and returns the bundle's row in
            the evidence ledger; None if the run has no such bundle. If the seal of the bundle was
            interrupted, it is completed first.
        on_partner_incident: calls the workflow that declares `Workflow.on_partner_incident`, in a
            transaction of the state database; returns None if no workflow declares it.
        run_address: address of the run on Airflow's API server; empty outside of a run, and if
            Airflow does not know its own address.
        pages_address: address of the compliance pages; empty in the same cases.
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
    run_address: str = ""
    pages_address: str = ""

    def bundle_address(self, row: LedgerRow) -> str:
        """Return the address of a bundle's compliance page; empty if it is not known."""
        return f"{self.pages_address}/evidence/{row.seq}" if self.pages_address else ""


@dataclass(frozen=True)
class RunContext(Generic[RunRules]):
    """The rules and services that the steps of a run use.

    Commands and checks outside of a run use this class with an empty `run`.

    Attributes:
        services: connections, stores, state database and clock.
        rules: the workflow's own section of the policy pack; None if the workflow has no section.
        run: DAG id and run id.
        triggered_by: user id of the person who triggered the run; None for a scheduled run.
        parameters: parameters of the run.
        task: the Airflow task that executes the step.
    """

    services: Services
    rules: RunRules
    run: Run = OUTSIDE_OF_RUNS
    triggered_by: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    task: TaskState = field(default_factory=TaskState)

    @property
    def pack(self) -> PolicyPack:
        """The policy pack that the run applies."""
        return self.services.pack

    @property
    def state(self) -> Engine:
        """The state database."""
        return self.services.state

    @property
    def clock(self) -> Clock:
        """The source of the current time."""
        return self.services.clock

    @property
    def zone(self) -> ZoneInfo:
        """The policy pack's timezone."""
        return self.pack.calendar.zone

    @property
    def now(self) -> datetime:
        """The current time in the policy pack's timezone."""
        return self.clock.now().astimezone(self.zone)

    @property
    def today(self) -> date:
        """Today's date in the policy pack's timezone."""
        return self.now.date()

    @property
    def roles(self) -> Mapping[str, Role]:
        """The company's roles in roles.yaml, by id."""
        return self.pack.roles

    @property
    def notices(self) -> NotificationRules:
        """The company's rules for notifications, from notices.yaml."""
        return self.pack.notices

    @cached_property
    def workdays(self) -> Workdays:
        """The company's workdays and holidays, from calendar.yaml."""
        return Workdays(self.pack.calendar)

    @property
    def controls(self) -> tuple[Control, ...]:
        """The controls that this run's workflow proves with its evidence bundles."""
        return self.pack.controls_of(self.run.dag_id)

    @property
    def requested_databases(self) -> list[str]:
        """The names of the databases that the run's parameters request.

        The list has all mapped databases if the parameters request none.
        """
        return list(self.parameters.get("databases") or self.pack.databases)

    @property
    def unsealed_folder(self) -> UnsealedFolder:
        """The folder of the run's bundle, for large files that steps write before the seal."""
        started_at = self.task.started_at or self.clock.now()
        bundle = bundle_path(self.run.dag_id, self.run.run_id, started_at)
        return UnsealedFolder(self.services.store("evidence_store"), bundle)

    def records(self) -> RunRecords:
        """Return the records and files that the steps of this run have stored so far."""
        key = self.run.dag_id, self.run.run_id
        with self.state.connect() as conn:
            return RunRecords(steps_of(conn, *key), artifacts_of(conn, *key))

    def require(self, step: RecordedTask[Result], part: str = "") -> Result:
        """Return the result of an earlier step of this run, which the calling step needs.

        Args:
            step: declaration of the earlier step.
            part: item that the mapped task worked on, such as a database; empty if the step is not
                mapped.

        Raises:
            ControlFailed: the earlier step has no record.
            NotEnded: the record of the earlier step has no result, because the step was started
                again and has not ended.
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
        """Store a file for the run's evidence bundle.

        An earlier file with the same name is replaced.

        Raises:
            UsageError: a bundle cannot contain a file with this name.
        """
        with self.state.begin() as conn:
            keep_artifact(conn, self.run.dag_id, self.run.run_id, name, content)

    def database(self, name: str) -> MappedDatabase:
        """Return the mapped database with the given name.

        Raises:
            UsageError: no mapped database has this name.
        """
        return self.pack.database(name)

    def reader(self, name: str) -> DatabaseAddress:
        """Return the address and login with which this workflow reads a mapped database.

        This is the workflow's own login if it has one, and otherwise the login in the data map's
        connection.
        """
        mapped = self.database(name).connection
        if self.rules is None:
            return self.services.database(mapped)
        return self.services.role_database(self.rules.connection_to(name), mapped)


def context_of(
    section: RuleSection[Rules], services: Services, run: Run = OUTSIDE_OF_RUNS
) -> RunContext[Rules]:
    """Return the run context of the workflow that owns a section of the policy pack.

    Args:
        section: the workflow's own section of the policy pack.
        services: services of the command or task.
        run: DAG id and run id; by default outside of a run.

    Raises:
        UsageError: the policy pack omits the section.
    """
    return RunContext(services, services.pack.require(section), run)
