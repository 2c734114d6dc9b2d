"""A small company in which incidents are led: its tables, its people, and a clock that tests move.

Duties are one or two people each. Customers 1 to 12: 11 has no address, 12 an impossible one; the
log says that account B2 opened 1 to 3.
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

from include.approvals.question import Answer, Question
from include.encryption.recipients import OpeningKey, opening_key_from_pem
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings
from include.incident import assessing, updating
from include.incident.form import Action
from include.incident.incident_run import SCENARIO, IncidentRecord, IncidentRun, record_of
from include.incident.names import CLAUSE, UPDATES, WORKFLOW, Kind
from include.incident.rule_checks import INCIDENT
from include.incident.rules import HoldRule, IncidentRules
from include.incident.selection import Selection
from include.incident.steps import assessment, closing, report
from include.incident.steps.decide import TELL, Decision
from include.incident.steps.task import IncidentTask
from include.incident.telling import notifying
from include.incident.timeline import Entry, of_kind
from include.incident.updating import Update
from include.incident.workflow import ASSESS, OPEN, PRESERVE, WIDEN
from include.messages import Message
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.policy.datamap import MappedDatabase
from include.policy.mapping import Staff
from include.registry import load_pack
from include.reports.i18n import Translator
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from include.workflow.run_context import RunContext, TaskState
from include.workplace import Workplace
from tests.incident.desk_world import ARCHIVE, COURIER, SCOPES, small_duty
from tests.notify.rig import MovingClock
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
CHECKLIST = {one.id: True for one in PACK.require(INCIDENT).type("lost_device").checklist}


def rules(**more: Any) -> IncidentRules:
    """The shipped rules for the small company; it has no people under 14."""
    changed = {
        "staff": Staff(database="courier", collection="staff", account="number"),
        "team": tuple(small_duty(one) for one in PACK.require(INCIDENT).team),
        "scope": SCOPES,
        "hold": HoldRule(each_up_to=EACH_UP_TO),
    }
    return PACK.require(INCIDENT).model_copy(update=changed | more)


@dataclass(frozen=True, kw_only=True)
class CompanyServices(Workplace):
    """Services whose evidence store is a folder, with one recipient."""

    folder: Path

    def store(self, conn_id: str) -> DirectoryStore:
        """The store in the folder."""
        del conn_id
        return DirectoryStore(self.folder)

    def recipients(self) -> tuple[list[Any], list[Any]]:
        """One recipient."""
        return _recipients(), []


def assess(run: IncidentRun) -> StepRecord:
    """Count what is affected."""
    return step_record(ASSESS, run)


def widen(run: IncidentRun, number: str, more: Selection, *, by: str) -> StepRecord:
    """Count what is affected by a wider selection."""
    findings = StepFindings(WIDEN.name, CLAUSE)
    counted = assessing.count_more(run, findings, record_of(run, number), more, by=by)
    return findings.record(counted)


@dataclass
class Company:
    """An incident's night.

    Attributes:
        state: the state database.
        address: of the company's database; the archive is another connection to it.
        folder: of the store.
        clock: that the test moves.
        rules: incident.yaml.
        databases: that the pack maps.
        broken: databases that cannot be reached.
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
        """Where no server answers."""
        return replace(self.address, parameters={**self.address.parameters, "port": "1"})

    @property
    def services(self) -> Workplace:
        """Its policy pack and its databases; those in `broken` cannot be reached."""
        sections = {INCIDENT.file: self.rules}
        pack = PACK.model_copy(update={"databases": self.databases, "sections": sections})
        there = {
            name: self.nowhere if name in self.broken else self.address for name in self.databases
        }
        addresses = {name: address.conninfo() for name, address in there.items()}
        made = services_of(pack, addresses, self.state, self.clock)
        return CompanyServices(
            home=made.home,
            policy=made.policy,
            lookup=made.lookup,
            clock=made.clock,
            load=made.load,
            open_state=made.open_state,
            folder=self.folder,
        )

    @property
    def anywhere(self) -> IncidentRun:
        """The context of a command: it is in no run."""
        return self.context(Run("", ""), None)

    def context(
        self, run: Run, by: str | None = LEAD, scenario: str = "", **parameters: Any
    ) -> IncidentRun:
        """The context of a run's steps; tasks are on their last try."""
        return RunContext(
            self.services,
            self.rules,
            run,
            triggered_by=by,
            parameters={SCENARIO: scenario, **parameters},
            task=TaskState(is_last_try=True, triggered_at=self.clock.now()),
        )

    def open(self, *keys: int, scenario: str = "", **form: Any) -> Case:
        """Trigger an incident; these customers are affected."""
        run = Run(WORKFLOW, f"manual__{uuid4().hex}")  # an id() comes again
        given = {
            "type": "lost_device",
            "what": "A scanner was left in a taxi",
            "another": True,
            "databases": ["courier"],
            "keys": [f"courier/{one}" for one in keys],
            "tabletop": scenario,
        } | form
        context = replace(self.context(run, scenario=scenario), parameters=given)
        number = str(step_record(OPEN, context).data["number"])
        self.runs[number] = run
        return Case(self, number, run, scenario)

    def run(self, statement: str) -> None:
        """Change the company's database."""
        with psycopg.connect(self.address.conninfo(), autocommit=True) as connection:
            connection.execute(statement.encode())


@dataclass(frozen=True)
class Case:
    """One incident in the hands of a test."""

    company: Company
    number: str
    run: Run
    scenario: str = ""

    @property
    def context(self) -> IncidentRun:
        """What its run works with now."""
        return self.company.context(self.run, scenario=self.scenario)

    @property
    def record(self) -> IncidentRecord:
        """All that is known now."""
        return record_of(self.context, self.number)

    def entries(self, *kinds: Kind) -> list[Entry]:
        """Its timeline, of some kinds."""
        return of_kind(self.record.entries, *kinds) if kinds else list(self.record.entries)

    def said(self, *kinds: Kind) -> list[str]:
        """The words of its timeline, in English."""
        return [english(one.words) for one in self.entries(*kinds)]

    def counted(self) -> Case:
        """Counted and secured."""
        assess(self.context)
        self.preserve()
        return self

    def preserve(self, run: Run | None = None, *, last: bool = False) -> StepRecord:
        """Secure the evidence; nobody holds the store up here."""
        context = self.company.context(
            run or self.run, scenario=self.scenario, incident=self.number
        )
        task = replace(context.task, is_last_try=last)
        return step_record(PRESERVE, replace(context, task=task))

    def task(self, step: str, authority: str = "cac") -> IncidentTask:
        """The task of a step."""
        part = authority if step.startswith("report") else ""
        return TASKS[step](self.context, self.record, part)

    def ask(self, step: str, authority: str = "cac") -> Question | None:
        """The page of a step; its document lies in PATH."""
        task = self.task(step, authority)
        if not task.record.incident.is_led:
            return None
        if isinstance(task, Decision):
            return task.dry_run()
        if isinstance(task, report.Summary):
            return task.question_about("PATH")
        if isinstance(task, report.FirstReport | report.FollowUpReport):
            handed_in = report.is_handed_in(task.record, authority, task.phase)
            return None if handed_in else task.question_about("PATH")
        return task.ask()

    def page(self, step: str, authority: str = "cac") -> Question:
        """The page of a step that has to ask."""
        found = self.ask(step, authority)
        assert found is not None
        return found

    def take(self, step: str, answer: Answer, authority: str = "cac") -> StepRecord:
        """Take an answer."""
        task = self.task(step, authority)
        return StepFindings(step, CLAUSE, task.part).record(task.take(answer))

    def answer(
        self, step: str, user: str | None = None, option: str | None = None,
        authority: str = "cac", **entered: Any,
    ) -> StepRecord:  # fmt: skip
        """Answer as the right person does, unless the test says otherwise."""
        who, chosen, usual = USUAL[step]
        answer = Answer(
            chosen if option is None else option,
            "",
            who if user is None else user or None,
            self.company.clock.now(),
            entered=dict(usual) | entered,
            content=self.content(step, authority),
        )
        self.company.clock.on(seconds=1)
        return self.take(step, answer, authority)

    def content(self, step: str, authority: str = "cac") -> str:
        """What the form that somebody opens now carries; of a decision, the form asked last."""
        if step == "decide":
            with self.company.state.connect() as conn:
                rows = text(
                    "SELECT concat(id, ':', sha256) FROM approval_request WHERE subject = :number "
                    "ORDER BY id DESC"
                )
                return str(conn.scalars(rows, {"number": self.number}).first() or "")
        return self.task(step, authority).content()

    def until(self, last: str, **entered: Mapping[str, Any]) -> Case:
        """Do every step up to and with that one, as it should be done; or as is said by step."""
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
        """Queue what was decided on."""
        context = self.company.context(
            run or self.run, scenario=self.scenario, incident=self.number
        )
        return notifying.queue(context, self.record)

    def settle(self) -> None:
        """Take note of what was sent."""
        with self.company.state.begin() as conn:
            notifying.told(conn, self.context, self.record)

    def update(self, action: Action, by: str = LEAD, words: str = "as said", **more: Any) -> Entry:
        """Add to it."""
        run = Run(UPDATES, f"update__{uuid4().hex}")
        context = self.company.context(run, by)
        return updating.enter(context, self.number, Update(action, words, **more), by=by)

    def delivered(self, state: str = "sent") -> None:
        """Say that everything that waits arrived, without a mail server."""
        with self.company.state.begin() as conn:
            conn.execute(
                text("UPDATE notice SET state = :state, settled_at = :at WHERE key LIKE :mine"),
                {"state": state, "mine": f"{self.number}/%", "at": self.company.clock.now()},
            )
        self.settle()


def english(message: Message) -> str:
    """A message as an English reader has it."""
    return Translator("en", "Asia/Shanghai").text(message)


def holds(conn: Connection, number: str) -> set[tuple[str, str]]:
    """Kind and value of the holds that an incident has in force."""
    rows = conn.execute(
        text("SELECT kind, value FROM legal_hold WHERE case_ref = :n AND released_at IS NULL"),
        {"n": number},
    )
    return {(kind, value) for kind, value in rows}


def _recipients() -> list[Any]:
    """One recipient; made once, since it takes long."""
    from include.encryption.recipients import new_pair, recipient_from_pem

    if not _MADE:
        private, certificate = new_pair("drill", NIGHT, bits=3072)
        _MADE.extend([private, recipient_from_pem("drill", certificate)])
    return _MADE[1:]


def key() -> OpeningKey:
    """The recipient's private key."""
    _recipients()
    return opening_key_from_pem(_MADE[0], "drill")


_MADE: list[Any] = []
STEPS = (
    "counted", "contain", "grade", "report", "impact", "decide", "notify", "report_rest",
    "close", "review", "summary",
)  # fmt: skip
"""As they are done one after the other."""
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
"""Who does a step, and how."""
