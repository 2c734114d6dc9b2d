"""The declaration of a workflow: everything that the rest of the system derives from it."""

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
from include.workplace import Workplace


class Cadence(StrEnum):
    """How often a workflow runs."""

    DAILY = "daily"
    WEEKLY = "weekly"
    QUARTERLY = "quarterly"
    ON_DEMAND = "on demand"


class Queue(StrEnum):
    """The queue of a workflow's tasks, and the trust zone of the workers that serve it.

    The workers of a zone have the keys and logins that its tasks need, and no others:
    `include.deployment.zones`. `docker-compose.yaml` serves each queue.
    """

    DEFAULT = "default"  # Airflow's own; also sends all notifications
    BACKUP = "backup"  # encrypts to public keys; deletes nothing
    DRILL = "drill"  # decrypts backups; reaches no customer database
    RETENTION = "retention"  # deletes records and restore points
    SEALING = "sealing"  # signs evidence, and removes evidence past its term


class AccessGroup(StrEnum):
    """Workflows that the same people may see and run; `include.orchestration.access.roles`."""

    BACKUPS = "backups"
    RECORDS = "records"
    AUDITS = "audits"
    PEOPLE = "people"
    INCIDENTS = "incidents"


@dataclass(frozen=True)
class DatabaseLogin:
    """A workflow's own login to mapped databases, with no more rights than it needs.

    Attributes:
        connection: id of the Airflow connection, ``partners_db``.
        sample_grants: SQL file with the login's grants on the tables of the sample company.
        named: returns the ids that a policy pack gives the connection, if the workflow has no
            section of its own; None if the id is always `connection`.
    """

    connection: str
    sample_grants: Path
    named: Callable[[PolicyPack], Collection[str]] | None = None

    @property
    def sample_role(self) -> str:
        """Role of the login in the sample company's database: ``courier_partners``."""
        return f"courier_{self.connection.removesuffix('_db')}"


@dataclass(frozen=True)
class LoginQuery:
    """A complete query of the policy pack, for the check of a login's rights.

    Attributes:
        connection: id of the login's connection.
        database: name of the mapped database.
        sql: the query.
    """

    connection: str
    database: str
    sql: str


@dataclass(frozen=True)
class NotificationKind(Generic[RunRules]):
    """A kind of notifications that a workflow queues.

    Any workflow may send the notifications of any other, and asks the declaring workflow first.

    Attributes:
        name: ``partners.reminder``.
        still_due: returns which of these keys are still due.
        addresses: returns the address of each key, for letters whose address is in no outbox.
    """

    name: str
    still_due: Callable[[RunContext[RunRules], Sequence[str]], set[str]]
    addresses: Callable[[RunContext[RunRules], Sequence[str]], Mapping[str, str]] | None = None


AnyStep = Step[RunRules, Any] | HumanTask[RunRules, Any] | Watch[RunRules]


@dataclass(frozen=True, kw_only=True)
class Workflow(Generic[RunRules]):
    """The declaration of a workflow.

    Attributes:
        id: its DAG id.
        title: its name for people.
        summary: one line of the DAG list.
        topic: what it is about, a tag of the DAG list: ``partners``.
        clauses: of the policy.
        cadence: how often it runs.
        owner: role of roles.yaml that answers for it.
        access: the group of workflows that its permissions belong to.
        further_topics: more tags.
        chooses_databases: whether a run may be limited to some mapped databases, by a parameter.
        trigger_form: returns the fields of a run's parameters, by section, from the rules, or from
            None under a pack that leaves out the section; None if the DAG file has them all.
        asks_people: whether a human task is part of it.
        queue: of its tasks, but `seal` and `send`, and steps that name their own.
        concurrent_runs: most runs at a time.
        starts_unpaused: whether Airflow creates its DAG unpaused.
        steps: in the order of the DAG.
        conclude: judges the records of a run.
        without_rules: summary of a run under a pack that leaves out its section.
        needs_rules: whether its steps fail under such a pack, instead of doing nothing.
        is_drill: returns by the run's parameters whether a run is a drill, whose steps work in a
            sandbox; None if no run is.
        after_sending: enters the result of each sending of notifications.
        on_partner_incident: reacts to an incident at a partner.
        rules: its own section of the policy pack; None if it has none.
        login: its own login to mapped databases.
        queries: yields the queries of the section, for the check of the login.
        pages_read: its tables that the compliance pages read.
        notifications: the kinds that it queues.
        reads_while_sealing: whether steps in the sealing queue read mapped databases, whose
            workers then have the workflow's login.
        produces: its assets, beside the sealed bundle that every workflow produces.
        interim_bundles: id and title of bundles that it seals while a run goes on.
        finding_kind: kind of its findings in the register of findings; empty if it has none.
        respondents: returns the user ids of everyone whom its human tasks may ask, in groups of
            one duty.
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
    trigger_form: Callable[[RunRules | None], FormSections] | None = None
    asks_people: bool = False
    queue: Queue = Queue.DEFAULT
    concurrent_runs: int = 1
    starts_unpaused: bool = False
    steps: tuple[AnyStep[RunRules], ...] = ()
    conclude: Callable[[RunContext[RunRules], RunRecords], Conclusion] | None = None
    without_rules: Message | None = None
    needs_rules: bool = False
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
    respondents: Callable[[RunContext[RunRules]], list[Sequence[str]]] | None = None

    @property
    def tags(self) -> list[str]:
        """The tags of the DAG."""
        human = ["asks people"] if self.asks_people else []
        clauses = [f"clause {clause}" for clause in self.clauses]
        return [self.topic, *self.further_topics, *human, *clauses, self.cadence]

    def step(self, name: str) -> AnyStep[RunRules]:
        """Return the step of that name; raises KeyError."""
        return {step.name: step for step in self.steps}[name]

    def logins(self, pack: PolicyPack | None) -> frozenset[str]:
        """Return the ids of the connections of its own login that a policy pack names.

        Args:
            pack: the policy pack; if it is None, the login has the id of the declaration.
        """
        if self.login is None:
            return frozenset()
        if pack is None:
            return frozenset({self.login.connection})
        if self.rules is not None:
            rules = pack.section(self.rules)
            return frozenset(rules.connections) if rules is not None else frozenset()
        named = self.login.named
        return frozenset(named(pack) if named else {self.login.connection})

    def conclude_without_rules(self, records: Sequence[StepRecord]) -> Conclusion:
        """Conclude a run under a pack that leaves out the section: nothing was done."""
        assert self.without_rules is not None
        return RunRecords(records).conclude(self.title, self.without_rules, lists_messages=False)

    def context(
        self, services: Workplace, run: Run = OUTSIDE_OF_RUNS, **more: Any
    ) -> RunContext[RunRules] | None:
        """Return a context of this workflow, or None if the pack leaves out its section.

        Args:
            services: of the command or task.
            run: dag id and run id; by default outside of a run.
            more: other fields of the context.
        """
        if self.rules is None:
            return RunContext(services, cast("RunRules", None), run, **more)
        rules = services.pack.section(self.rules)
        return None if rules is None else RunContext(services, rules, run, **more)


AnyWorkflow = Workflow[Any]
