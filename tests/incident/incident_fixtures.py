"""A small sample company that has incidents: tables, people, and a clock that tests set.

Each duty has one or two people. Customers have the numbers 1 to 12. Customer 11 has no address, and
customer 12 has an invalid address. In the access log, account B2 opened customers 1 to 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine, text

from include.approvals.required_action import Answer, RequiredAction
from include.encryption.recipients import OpeningKey, opening_key_from_pem
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings
from include.incident import scope_assessment, updates
from include.incident.communication import notices
from include.incident.form import Action
from include.incident.incident_ids import CLAUSE, UPDATES, WORKFLOW, Kind
from include.incident.incident_run import SCENARIO, IncidentRecord, IncidentRun, record_of
from include.incident.rule_checks import INCIDENT
from include.incident.rules import HoldRule, IncidentRules
from include.incident.selection import Selection
from include.incident.steps import assessment, closing, report
from include.incident.steps.decision import TELL, Decision
from include.incident.steps.task import IncidentTask
from include.incident.timeline import Entry, of_kind
from include.incident.updates import Update
from include.incident.workflow import ASSESS, OPEN, PRESERVE, WIDEN
from include.messages import Message
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.policy.datamap import MappedDatabase
from include.policy.mapping import StaffTable
from include.registry import load_pack
from include.reports.i18n import Translator
from include.service_container import Services
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from include.workflow.run_context import RunContext, TaskState
from tests.incident.company_database import ARCHIVE, COURIER, SCOPES, small_duty
from tests.notify.notify_fixtures import MovingClock
from tests.support.contexts import services_of, step_record

NIGHT = datetime(2026, 11, 25, 19, 15, tzinfo=UTC)  # 03:15 in Shanghai
PACK = load_pack(SHIPPED)
LEAD, TECH, COMP, SERVICE, BOSS, OTHER_BOSS = "L1", "T1", "C1", "S1", "B1", "B2"
EACH_UP_TO = 4
TABLES = """
CREATE TABLE staff (number text PRIMARY KEY, duty text NOT NULL, away boolean DEFAULT false);
INSERT INTO staff VALUES ('L1', 'command'), ('T1', 'technical'), ('T2', 'technical'),
    ('T9', 'technical'), ('C1', 'compliance'), ('S1', 'customer_service'), ('B1', 'management'),
    ('B2', 'management');
UPDATE staff SET away = true WHERE number = 'T9';
CREATE TABLE customer (customer_id bigint PRIMARY KEY, name text, mail text, made timestamptz);
INSERT INTO customer SELECT n, 'Name ' || n, 'c' || n || '@customer.example', '2026-11-01Z'
    FROM generate_series(1, 10) n;
INSERT INTO customer VALUES (11, 'Name 11', NULL, '2026-11-01Z'),
    (12, 'Name 12', 'nowhere', '2026-11-01Z');
CREATE TABLE opened (opened_id bigint PRIMARY KEY, number text, customer_id bigint, at timestamptz);
INSERT INTO opened SELECT n, 'B2', n, '2026-11-24 12:00Z' FROM generate_series(1, 3) n;
CREATE TABLE given (given_id bigint PRIMARY KEY, partner int, customer_id bigint, at timestamptz);
INSERT INTO given VALUES (1, 7, 4, '2021-01-01Z'), (2, 7, 5, '2026-11-01Z'),
    (3, 8, 6, '2026-11-01Z');
"""
TEXTS = {
    f"{name}_{language}": f"{name}, said in {language}"
    for name in assessment.TEXTS
    for language in assessment.LANGUAGES
}
CHECKLIST = {item.id: True for item in PACK.require(INCIDENT).type("lost_device").checklist}


def rules(**more: Any) -> IncidentRules:
    """Return the shipped rules, adapted to the sample company, which has no people under 14."""
    changes = {
        "staff": StaffTable(database="courier", collection="staff", account="number"),
        "team": tuple(small_duty(duty) for duty in PACK.require(INCIDENT).team),
        "scope": SCOPES,
        "hold": HoldRule(each_up_to=EACH_UP_TO),
    }
    return PACK.require(INCIDENT).model_copy(update=changes | more)


@dataclass(frozen=True, kw_only=True)
class CompanyServices(Services):
    """Services whose evidence store is a folder with a single recipient."""

    folder: Path

    def store(self, conn_id: str) -> DirectoryStore:
        """Return the evidence store, which is the folder."""
        del conn_id
        return DirectoryStore(self.folder)

    def recipients(self) -> tuple[list[Any], list[Any]]:
        """Return one recipient of the evidence store."""
        return _recipients(), []


def assess(run: IncidentRun) -> StepRecord:
    """Count the affected records of an incident, and return the step record."""
    return step_record(ASSESS, run)


def widen(run: IncidentRun, number: str, more: Selection, *, by: str) -> StepRecord:
    """Count the affected records of a wider scope, and return the step record.

    Args:
        run: current run.
        number: number of the incident.
        more: criteria that cover everything that is known to be affected.
        by: user id of the person who entered the criteria.
    """
    findings = StepFindings(WIDEN.name, CLAUSE)
    counted = scope_assessment.count_more(run, findings, record_of(run, number), more, by=by)
    return findings.record(counted)


@dataclass
class Company:
    """The small company on the night of an incident.

    Attributes:
        state: engine of the state database.
        address: address of the company's database; the archive is another connection to it.
        folder: folder of the evidence store.
        clock: clock that the test moves.
        rules: content of incident.yaml.
        databases: mapped databases of the policy pack, by name.
        broken: names of the databases that cannot be reached.
        runs: run by incident number.
    """

    state: Engine
    address: DatabaseAddress
    folder: Path
    clock: MovingClock = field(default_factory=lambda: MovingClock(NIGHT))
    rules: IncidentRules = field(default_factory=rules)
    databases: dict[str, MappedDatabase] = field(
        default_factory=lambda: {"courier": COURIER, "archive": ARCHIVE}
    )
    broken: set[str] = field(default_factory=set)
    runs: dict[str, Run] = field(default_factory=dict)

    @property
    def nowhere(self) -> DatabaseAddress:
        """A database address at which no server listens."""
        return replace(self.address, parameters={**self.address.parameters, "port": "1"})

    @property
    def services(self) -> Services:
        """Services with connections to the company's databases, except those in `broken`."""
        sections = {INCIDENT.file: self.rules}
        pack = PACK.model_copy(update={"databases": self.databases, "sections": sections})
        address_by_name = {
            name: self.nowhere if name in self.broken else self.address for name in self.databases
        }
        addresses = {name: address.conninfo() for name, address in address_by_name.items()}
        services = services_of(pack, addresses, self.state, self.clock)
        return CompanyServices(
            home=services.home,
            policy=services.policy,
            lookup=services.lookup,
            clock=services.clock,
            load=services.load,
            open_state=services.open_state,
            folder=self.folder,
        )

    @property
    def anywhere(self) -> IncidentRun:
        """The context of a CLI command, which does not belong to a run."""
        return self.context(Run("", ""), None)

    def context(
        self, run: Run, by: str | None = LEAD, scenario: str = "", **parameters: Any
    ) -> IncidentRun:
        """Return the context in which the steps of a run are done.

        The tasks are on their last attempt.

        Args:
            run: run of a workflow.
            by: user id of the person who triggered the run, or None.
            scenario: id of a drill's scenario; empty for a real incident.
            parameters: parameters of the run.
        """
        return RunContext(
            self.services,
            self.rules,
            run,
            triggered_by=by,
            parameters={SCENARIO: scenario, **parameters},
            task=TaskState(is_last_try=True, triggered_at=self.clock.now()),
        )

    def open(self, *keys: int, scenario: str = "", **form: Any) -> Case:
        """Open an incident that affects the given customers.

        Args:
            keys: numbers of the affected customers.
            scenario: id of a drill's scenario; empty for a real incident.
            form: other fields of the trigger form.
        """
        run = Run(WORKFLOW, f"manual__{uuid4().hex}")  # unique across tests
        parameters = {
            "type": "lost_device",
            "what": "A scanner was left in a taxi",
            "another": True,
            "databases": ["courier"],
            "keys": [f"courier/{key}" for key in keys],
            "tabletop": scenario,
        } | form
        context = replace(self.context(run, scenario=scenario), parameters=parameters)
        number = str(step_record(OPEN, context).data["number"])
        self.runs[number] = run
        return Case(self, number, run, scenario)

    def run(self, statement: str) -> None:
        """Run an SQL statement in the company's database."""
        with psycopg.connect(self.address.conninfo(), autocommit=True) as connection:
            connection.execute(statement.encode())


@dataclass(frozen=True)
class Case:
    """An incident of the sample company, with the steps that a test does."""

    company: Company
    number: str
    run: Run
    scenario: str = ""

    @property
    def context(self) -> IncidentRun:
        """The context of the run that handles the incident, at the current time."""
        return self.company.context(self.run, scenario=self.scenario)

    @property
    def record(self) -> IncidentRecord:
        """The incident with its current timeline."""
        return record_of(self.context, self.number)

    def entries(self, *kinds: Kind) -> list[Entry]:
        """Return the timeline entries of the given kinds, or all entries."""
        return of_kind(self.record.entries, *kinds) if kinds else list(self.record.entries)

    def said(self, *kinds: Kind) -> list[str]:
        """Return the English display texts of the timeline entries of the given kinds."""
        return [english(entry.words) for entry in self.entries(*kinds)]

    def counted(self) -> Case:
        """Count the affected records, preserve the evidence, and return the incident."""
        assess(self.context)
        self.preserve()
        return self

    def preserve(self, run: Run | None = None, *, last: bool = False) -> StepRecord:
        """Preserve the evidence and return the step record.

        Args:
            run: run that preserves the evidence; default: the run that handles the incident.
            last: whether this is the last attempt of the task.
        """
        context = self.company.context(
            run or self.run, scenario=self.scenario, incident=self.number
        )
        task = replace(context.task, is_last_try=last)
        return step_record(PRESERVE, replace(context, task=task))

    def task(self, step: str, authority: str = "cac") -> IncidentTask:
        """Return the human task of a step."""
        part = authority if step.startswith("report") else ""
        return TASKS[step](self.context, self.record, part)

    def ask(self, step: str, authority: str = "cac") -> RequiredAction | None:
        """Return the required action of a step, or None if no answer is needed.

        The document of the step is not sealed. Its path in the form is always `PATH`.

        Args:
            step: name of the step.
            authority: id of the authority, for a step that reports to an authority.
        """
        task = self.task(step, authority)
        if not task.record.incident.requires_steps:
            return None
        if isinstance(task, Decision):
            return task.dry_run()
        if isinstance(task, report.Summary):
            return task.action_for("PATH")
        if isinstance(task, report.FirstReport | report.FollowUpReport):
            handed_in = report.is_handed_in(task.record, authority, task.phase)
            return None if handed_in else task.action_for("PATH")
        return task.ask()

    def page(self, step: str, authority: str = "cac") -> RequiredAction:
        """Return the required action of a step. Fail the test if the step has none."""
        action = self.ask(step, authority)
        assert action is not None
        return action

    def record_answer(self, step: str, answer: Answer, authority: str = "cac") -> StepRecord:
        """Record an answer to a step, and return the step record."""
        task = self.task(step, authority)
        return StepFindings(step, CLAUSE, task.part).record(task.record_answer(answer))

    def answer(
        self, step: str, user: str | None = None, option: str | None = None,
        authority: str = "cac", **entered: Any,
    ) -> StepRecord:  # fmt: skip
        """Answer a step.

        Args:
            step: name of the step.
            user: user id of the person; default: the usual person for the step. If it is empty, the
                answer has no user.
            option: id of the answer; default: the usual answer to the step.
            authority: id of the authority, for a step that reports to an authority.
            entered: values of form fields that differ from the usual values.
        """
        usual_user, chosen, usual_values = USUAL[step]
        answer = Answer(
            chosen if option is None else option,
            "",
            usual_user if user is None else user or None,
            self.company.clock.now(),
            entered=dict(usual_values) | entered,
            content=self.content(step, authority),
        )
        self.company.clock.on(seconds=1)
        return self.record_answer(step, answer, authority)

    def content(self, step: str, authority: str = "cac") -> str:
        """Return the digest of the facts that a form of the step would show now.

        For the decision, return the content of the newest approval request.

        Args:
            step: name of the step.
            authority: id of the authority, for a step that reports to an authority.
        """
        if step == "decide":
            with self.company.state.connect() as conn:
                rows = text(
                    "SELECT concat(id, ':', sha256) FROM approval_request WHERE subject = :number "
                    "ORDER BY id DESC"
                )
                return str(conn.scalars(rows, {"number": self.number}).first() or "")
        return self.task(step, authority).content()

    def until(self, last: str, **entered: Mapping[str, Any]) -> Case:
        """Do all steps up to `last`, and return the incident.

        Args:
            last: name of the last step to do.
            entered: step name -> values that differ from the usual values.
        """
        for step in STEPS:
            if step == "counted":
                self.counted()
            elif step == "notify":
                self.notify()
                self.delivered()
            elif step.startswith("report"):
                for authority in ("cac", "postal"):
                    self.answer(step, authority=authority)
            elif step != "decide" or self.ask("decide") is not None:
                self.answer(step, **entered.get(step, {}))
            self.company.clock.on(minutes=1)
            if step == last:
                return self
        raise AssertionError(last)

    def notify(self, run: Run | None = None) -> Any:
        """Queue the notices if the decision is to notify people."""
        context = self.company.context(
            run or self.run, scenario=self.scenario, incident=self.number
        )
        return notices.queue_notices(context, self.record)

    def settle(self) -> None:
        """Record the delivery of the notices on the timeline."""
        with self.company.state.begin() as conn:
            notices.record_delivery(conn, self.context, self.record)

    def update(self, action: Action, by: str = LEAD, words: str = "as said", **more: Any) -> Entry:
        """Enter an update of the incident.

        Args:
            action: action of the update.
            by: user id of the person.
            words: description of the event, or reason for the action.
            more: other fields of `Update`.
        """
        run = Run(UPDATES, f"update__{uuid4().hex}")
        context = self.company.context(run, by)
        return updates.record_update(context, self.number, Update(action, words, **more), by=by)

    def delivered(self, state: str = "sent") -> None:
        """Set the delivery state of all notices without sending them, and record the delivery."""
        with self.company.state.begin() as conn:
            conn.execute(
                text(
                    "UPDATE notification SET state = :state, settled_at = :at WHERE key LIKE :mine"
                ),
                {"state": state, "mine": f"{self.number}/%", "at": self.company.clock.now()},
            )
        self.settle()


def english(message: Message) -> str:
    """Return a message as English text."""
    return Translator("en", "Asia/Shanghai").text(message)


def holds(conn: Connection, number: str) -> set[tuple[str, str]]:
    """Return the kind and the value of each legal hold of an incident that is in force."""
    rows = conn.execute(
        text("SELECT kind, value FROM legal_hold WHERE case_ref = :n AND released_at IS NULL"),
        {"n": number},
    )
    return {(kind, value) for kind, value in rows}


def _recipients() -> list[Any]:
    """Return a list with one recipient. Its keys are generated once, because that is slow."""
    from include.encryption.recipients import new_pair, recipient_from_pem

    if not _MADE:
        private, certificate = new_pair("drill", NIGHT, bits=3072)
        _MADE.extend([private, recipient_from_pem("drill", certificate)])
    return _MADE[1:]


def key() -> OpeningKey:
    """Return the private key that decrypts the extracts of the sample company."""
    _recipients()
    return opening_key_from_pem(_MADE[0], "drill")


_MADE: list[Any] = []
STEPS = (
    "counted", "contain", "grade", "report", "impact", "decide", "notify", "report_rest",
    "close", "review", "summary",
)  # fmt: skip
"""Steps in working order."""
TASKS: dict[str, type[IncidentTask]] = {
    task.step: task
    for task in (
        assessment.Containment, assessment.Grading, report.FirstReport,
        assessment.ImpactAssessment, Decision, report.FollowUpReport, closing.Closing,
        closing.Review, report.Summary,
    )
}  # fmt: skip
USUAL: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "contain": (TECH, assessment.CONTAINED, CHECKLIST),
    "grade": (COMP, assessment.CONFIRM, {"grade": "general"}),
    "report": (COMP, report.HANDED_IN, {"receipt": "R-1"}),
    "impact": (SERVICE, assessment.ASSESSED, TEXTS),
    "decide": (BOSS, TELL, {"reason": "The risk is high", "list_looked_at": True}),
    "report_rest": (COMP, report.HANDED_IN, {"receipt": "R-2"}),
    "close": (LEAD, closing.CLOSE, {"words": "It is over"}),
    "review": (LEAD, closing.REVIEWED, {"lessons": "Lock scanners"}),
    "summary": (COMP, report.DONE, {"receipt": "S-1"}),
}
"""Step -> usual person, option and values."""
