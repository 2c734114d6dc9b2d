"""The declaration of a workflow, from which its DAG, permissions and reference page are derived."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, cast

from sqlalchemy import Connection, Table

from include.approvals.form import FormSections
from include.evidence.model import StepRecord
from include.messages import Message
from include.notify.outbox import Run
from include.policy import PolicyPack
from include.policy.section import RuleSection
from include.reports.conclusion import Conclusion
from include.service_container import Services
from include.workflow.assets import Asset
from include.workflow.run_context import (
    OUTSIDE_OF_RUNS,
    PartnerIncident,
    PartnerReaction,
    RunContext,
    RunRules,
)
from include.workflow.run_records import RunRecords
from include.workflow.step import HumanTask, Step, Watch


class Cadence(StrEnum):
    """How often a workflow is meant to run."""

    DAILY = "daily"
    WEEKLY = "weekly"
    QUARTERLY = "quarterly"
    HOURLY = "hourly"
    ON_DEMAND = "on demand"


class Queue(StrEnum):
    """The Celery queue of a workflow's tasks. The workers of each queue form a trust zone.

    The workers of a trust zone have only the keys and logins that the queue's tasks need; see
    `include.deployment.zones`. `docker-compose.yaml` has workers for each queue.
    """

    DEFAULT = "default"  # Airflow's own; also sends all notifications
    BACKUP = "backup"  # encrypts to public keys; deletes nothing
    DRILL = "drill"  # decrypts backups; reaches no customer database
    RETENTION = "retention"  # deletes records and restore points
    SEALING = "sealing"  # signs evidence, and removes expired evidence


class AccessGroup(StrEnum):
    """A group of workflows that the same people may see and run.

    `include.orchestration.access.roles` grants the permissions.
    """

    BACKUPS = "backups"
    RECORDS = "records"
    AUDITS = "audits"
    PEOPLE = "people"
    INCIDENTS = "incidents"
    FINDINGS = "findings"
    USE = "use"


@dataclass(frozen=True)
class DatabaseLogin:
    """A workflow's own login to mapped databases, with only the rights that the workflow needs.

    Attributes:
        connection: id of the Airflow connection, such as ``partners_db``.
        sample_grants: SQL file that grants the login its rights on the sample company's tables.
        purpose: what the workflow uses the login for, as the reference page describes it. Empty if
            the login only reads tables, with the queries of the workflow's policy section.
        named: returns the connection ids that the policy pack sets for the login and that replace
            `connection`; None if the policy pack cannot set any. Not used if the workflow has its
            own section in the policy pack.
    """

    connection: str
    sample_grants: Path
    purpose: str = ""
    named: Callable[[PolicyPack], Collection[str]] | None = None

    @property
    def sample_role(self) -> str:
        """The role of this login in the sample company's database, such as ``courier_partners``."""
        return f"courier_{self.connection.removesuffix('_db')}"


@dataclass(frozen=True)
class LoginQuery:
    """An SQL query that the policy pack defines, used to check the rights of a login.

    Attributes:
        connection: id of the login's connection.
        database: name of the mapped database on which the query runs.
        sql: text of the query.
    """

    connection: str
    database: str
    sql: str


@dataclass(frozen=True)
class NotificationKind(Generic[RunRules]):
    """A kind of notification that a workflow queues.

    Notifications may be sent by a run of another workflow. Before that run sends them, it calls
    `still_due` of the workflow that declares the kind.

    Attributes:
        name: name of the kind, such as ``partners.reminder``.
        title: display name of the kind, such as "training reminder".
        still_due: receives the keys of queued notifications, and returns the keys of those that are
            still due.
        addresses: for notices to customers: receives keys of queued notices, and returns key ->
            mail address, because the outbox does not store the addresses of customers. None if the
            kind is not a notice to customers.
        secrets: receives keys of queued notifications, and returns key -> secret, such as the
            password of a file. The mail contains the secret, and the outbox does not store it. None
            if the kind has no secrets.
    """

    name: str
    title: Message
    still_due: Callable[[RunContext[RunRules], Sequence[str]], set[str]]
    addresses: Callable[[RunContext[RunRules], Sequence[str]], Mapping[str, str]] | None = None
    secrets: Callable[[RunContext[RunRules], Sequence[str]], Mapping[str, str]] | None = None


AnyStep = Step[RunRules, Any] | HumanTask[RunRules, Any] | Watch[RunRules]


@dataclass(frozen=True, kw_only=True)
class Workflow(Generic[RunRules]):
    """The declaration of a workflow.

    Attributes:
        id: DAG id of the workflow.
        title: display name of the workflow.
        summary: description in one line for the DAG list.
        topic: subject of the workflow, shown as a tag in the DAG list, such as ``partners``.
        clauses: policy clauses that the workflow covers.
        cadence: how often the workflow runs.
        owner: role of roles.yaml that is responsible for the workflow.
        access: access group of the workflow, which decides who may see and run it.
        further_topics: additional tags in the DAG list.
        chooses_databases: whether a parameter can limit a run to some of the mapped databases.
        trigger_form: returns the fields of the trigger form for a policy pack, by section of the
            form. `trigger_form` is None if the DAG file declares all parameters.
        asks_people: whether the workflow contains a human task.
        queue: queue of the tasks, except `seal`, `send`, and steps that declare another queue.
        concurrent_runs: maximum number of simultaneous runs.
        starts_unpaused: whether Airflow creates the DAG unpaused.
        steps: steps in the order of the DAG.
        conclude: derives the conclusion of a run, with the outcome and the report, from the step
            records of the run.
        without_rules: summary of a run if the policy pack omits the workflow's section.
        needs_rules: whether the steps fail if the policy pack omits the workflow's section. If
            False, the steps do nothing in that case.
        unfinished_without_rules: returns the problem that remains if the policy pack omits the
            workflow's section, such as extracts that nobody deletes; None if there is none. The
            problem fails the run.
        is_drill: returns, from the run's parameters, whether a run is a drill. The steps of a drill
            work in a sandbox. None if no run is a drill.
        after_sending: called each time after a task has sent notifications, for example to record
            which of them were delivered; None if there is nothing to do.
        on_partner_incident: called when an incident at a partner is opened, in the transaction that
            opens it; None if the workflow does not react to such incidents.
        rules: the workflow's own section of the policy pack; None if it has none.
        login: the workflow's own login to mapped databases; None if it has none.
        queries: yields the SQL queries in the workflow's section, for a check whether the login may
            run them.
        pages_read: tables of the workflow that the compliance pages read.
        notifications: kinds of notifications that the workflow queues.
        reads_while_sealing: whether steps in the sealing queue read mapped databases. If so, the
            workers of the sealing queue have the workflow's login.
        produces: assets that the workflow produces in addition to the sealed bundle.
        interim_bundles: workflow id under which an interim bundle is sealed -> title of the bundle.
        finding_kind: kind of the workflow's findings in the register of findings; empty if the
            workflow enters no findings there itself.
        findings_need_retest: whether only a person's retest closes the findings of the workflow's
            runs, because each run is about something else, such as an incident. The findings of
            other workflows are closed by a later run.
        respondents: returns the user ids of all people whom the human tasks may ask, in one list
            for each duty, such as the incident lead. Any person in the list of a duty may answer
            for it.
    """

    id: str
    title: Message
    summary: str
    topic: str
    clauses: tuple[str, ...]
    cadence: Cadence
    owner: str
    access: AccessGroup
    further_topics: tuple[str, ...] = ()
    chooses_databases: bool = False
    trigger_form: Callable[[PolicyPack], FormSections] | None = None
    asks_people: bool = False
    queue: Queue = Queue.DEFAULT
    concurrent_runs: int = 1
    starts_unpaused: bool = False
    steps: tuple[AnyStep[RunRules], ...] = ()
    conclude: Callable[[RunContext[RunRules], RunRecords], Conclusion] | None = None
    without_rules: Message | None = None
    needs_rules: bool = False
    unfinished_without_rules: Callable[[Connection], Message | None] | None = None
    is_drill: Callable[[Mapping[str, Any]], bool] | None = None
    after_sending: Callable[[RunContext[RunRules]], object] | None = None
    on_partner_incident: (
        Callable[[RunContext[RunRules], Connection, PartnerIncident], PartnerReaction] | None
    ) = None
    rules: RuleSection[Any] | None = None
    login: DatabaseLogin | None = None
    queries: Callable[[RunContext[RunRules]], Iterator[LoginQuery]] | None = None
    pages_read: tuple[Table, ...] = ()
    notifications: tuple[NotificationKind[RunRules], ...] = ()
    reads_while_sealing: bool = False
    produces: tuple[Asset, ...] = ()
    interim_bundles: Mapping[str, Message] = field(default_factory=dict)
    finding_kind: str = ""
    findings_need_retest: bool = False
    respondents: Callable[[RunContext[RunRules]], list[Sequence[str]]] | None = None

    @property
    def tags(self) -> list[str]:
        """The tags of the DAG in Airflow: topics, clauses and cadence.

        Workflows with a human task also have the tag "asks people".
        """
        human = ["asks people"] if self.asks_people else []
        clauses = [f"clause {clause}" for clause in self.clauses]
        return [self.topic, *self.further_topics, *human, *clauses, self.cadence]

    def step(self, name: str) -> AnyStep[RunRules]:
        """Return the workflow's step with the given name.

        Raises:
            KeyError: the workflow has no such step.
        """
        return {step.name: step for step in self.steps}[name]

    def logins(self, pack: PolicyPack | None) -> frozenset[str]:
        """Return the connection ids of the workflow's own login.

        The result is empty if the workflow has no login of its own, or if the policy pack omits the
        workflow's section.

        Args:
            pack: the policy pack, which may name connections for the login. If it is None, the id
                in the workflow's declaration is returned.
        """
        if self.login is None:
            return frozenset()
        if pack is None:
            return frozenset({self.login.connection})
        if self.rules is not None:
            rules = pack.section(self.rules)
            return frozenset(rules.connections) if rules is not None else frozenset()
        ids_of = self.login.named
        return frozenset(ids_of(pack) if ids_of else {self.login.connection})

    def conclude_without_rules(self, records: Sequence[StepRecord]) -> Conclusion:
        """Return the conclusion of a run for which the policy pack omits the workflow's section.

        Such a run does nothing.
        """
        assert self.without_rules is not None
        return RunRecords(records).conclude(self.title, self.without_rules, lists_messages=False)

    def context(
        self, services: Services, run: Run = OUTSIDE_OF_RUNS, **fields: Any
    ) -> RunContext[RunRules] | None:
        """Return a run context of this workflow.

        Return None if the policy pack omits the workflow's own section.

        Args:
            services: services of the command or task.
            run: DAG id and run id; by default outside of a run.
            fields: values of other fields of the context.
        """
        if self.rules is None:
            return RunContext(services, cast("RunRules", None), run, **fields)
        rules = services.pack.section(self.rules)
        return None if rules is None else RunContext(services, rules, run, **fields)


AnyWorkflow = Workflow[Any]
