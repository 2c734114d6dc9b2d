"""A company whose employees request customer information, on real databases and stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine, text

from include.approvals.required_action import Answer, RequiredAction
from include.disclosure.absence_proof import PROVE
from include.disclosure.approval import APPROVE, APPROVE_SECOND, UseApproval
from include.disclosure.content import RequestContent
from include.disclosure.delivery import DELIVER
from include.disclosure.expiry import EXPIRE
from include.disclosure.extract_store import STORE
from include.disclosure.requests import UseRequest
from include.disclosure.rules import USE, LoginRules, UseRules
from include.disclosure.use_check import CHECK, prepare_request
from include.disclosure.use_form import make_content
from include.disclosure.use_notifications import passwords
from include.disclosure.verification import VERIFY
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings, record_step
from include.holds import registry as holds
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy import PolicyPack
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.purposes import Purpose
from include.policy.rules import Calendar, Role
from include.service_container import Services
from include.services.connections import ConnectionSpec
from include.services.database import LOGIN_PREFIX
from include.services.objectstore.directory import DirectoryStore
from include.workflow.run_context import RunContext, TaskState, context_of
from include.workflow.step import HumanTask, Step
from tests.support.contexts import connection, pack_of
from tests.support.databases import pooled, temporary_database

NOW = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)
MASTER = "x" * 40
ROSTER = "SELECT * FROM roster"
TABLES = """
CREATE TABLE roster (
    person text, name text, mail text, department text, supervisor text,
    active boolean, trained boolean, second_approver boolean
);
CREATE TABLE customer (
    customer_id bigint PRIMARY KEY, name text, phone text, id_number text, birth_date date,
    status text NOT NULL, created_at timestamptz NOT NULL, weight integer, note text
);
"""
EMPLOYEES = (
    ("boss", "Boss", "boss@c.example", "office", None, True, True, False),
    ("lead", "Lead", "lead@c.example", "service", "boss", True, True, False),
    ("clerk", "Clerk", "clerk@c.example", "service", "lead", True, True, False),
    ("novice", "Novice", "novice@c.example", "service", "lead", True, False, False),
    ("leaver", "Leaver", "leaver@c.example", "service", "lead", False, True, False),
    ("officer", "Officer", "officer@c.example", "compliance", "boss", True, True, True),
    ("deputy", "Deputy", "deputy@c.example", "compliance", "boss", True, True, True),
)
RULES = UseRules.model_validate(
    {
        "roster": {"database": "shop", "sql": ROSTER},
        "purposes": [
            {"purpose": "delivery", "title": {"en": "Delivery", "zh-CN": "寄递"}, "max_days": 7}
        ],
        "collections": [
            {
                "database": "shop",
                "collection": "customer",
                "subjects": ["customer_id"],
                "minor": "t.birth_date > date '2008-12-01'",
                "filters": {
                    "customer_id": "key",
                    "status": "code",
                    "created_at": "date",
                    "weight": "number",
                },
                "masks": {"customer_id": "show", "name": "name", "phone": "phone"},
            }
        ],
        "owner": "information_management",
    }
)
WITH_LOGINS = RULES.model_copy(
    update={"logins": LoginRules.model_validate({"databases": ["shop"], "sessions": 2})}
)
_PERSONAL = ("customer_id", "name", "phone", "id_number", "birth_date", "note")


class SettableClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        """Return the time that the test set."""
        return self.at


@dataclass
class UseCompany:
    """A company with employees, customers, a state database and an extract store.

    Attributes:
        source: connection string of the mapped database.
        state: engine of the migrated state database.
        folder: folder of the extract store.
        clock: the current time.
        pack: the policy pack.
        extract_spec: connection of the extract store; None if it is not configured.
        runs: number of runs that were started.
        login: connection string of the workflow's own login; empty for that of ``source``.
    """

    source: str
    state: Engine
    folder: Path
    clock: SettableClock
    pack: PolicyPack
    extract_spec: ConnectionSpec | None
    runs: int = 0
    login: str = ""
    is_last_try: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def services(self) -> Services:
        """Services with the connections of this company."""
        keys = {"current": "1", "keys": {"1": "k" * 32}}
        specs = {
            "shop_db": connection("shop_db", self.login or self.source),
            "state_db": ConnectionSpec("state_db", "postgres", extra={"erasure_keys": keys}),
        }
        if self.extract_spec is not None:
            specs[STORE] = self.extract_spec
        return Services(
            Path("/nonexistent"),
            self.pack.folder,
            specs.get,
            self.clock,
            load=lambda _: self.pack,
            open_state=self.state,
        )

    @property
    def store(self) -> DirectoryStore:
        """The extract store."""
        return DirectoryStore(self.folder)

    def context(self, run: Run | None = None, **more: Any) -> RunContext[UseRules]:
        """Return a run context, by default outside of a run."""
        base = context_of(USE, self.services, run) if run else context_of(USE, self.services)
        return replace(base, **more)

    def start(
        self, workflow: str = "use_information", by: str | None = "clerk", **parameters: Any
    ) -> UseRun:
        """Return a new run of a workflow."""
        self.runs += 1
        run = Run(workflow, f"run-{self.runs}")
        return UseRun(self, run, by, parameters, self.clock.now())

    def request(
        self, by: str = "clerk", keys: frozenset[str] = frozenset(), **more: Any
    ) -> UseRequest:
        """Store a prepared request for the customers with the status ``active``."""
        with self.state.begin() as conn:
            return prepare_request(
                self.context(), conn, content(by, keys, **more), keys, self.clock.now()
            )

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement on the mapped database, and return its rows."""
        with psycopg.connect(self.source, autocommit=True) as database:
            cursor = database.execute(sql, values or None)  # type: ignore[call-overload] # text
            return cursor.fetchall() if cursor.description else []

    def add_customers(self, count: int = 5, after: int | None = None, **more: Any) -> None:
        """Insert adult customers with consecutive numbers and the status ``active``.

        Args:
            count: number of customers.
            after: number before the first new number; by default the largest number in the table.
            more: other values of columns.
        """
        (largest,) = self.execute("SELECT coalesce(max(customer_id), 0) FROM customer")[0]
        highest = largest if after is None else after
        values = {"birth_date": "1980-05-06", "status": "active", "created_at": NOW} | more
        for number in range(highest + 1, highest + 1 + count):
            self.execute(
                "INSERT INTO customer (customer_id, name, phone, id_number, birth_date, status,"
                " created_at, weight) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                number, f"王小{number}", f"138{number:08d}", f"ID{number}",
                values["birth_date"], values["status"], values["created_at"], number % 1000 * 10,
            )  # fmt: skip

    def set_employee(self, person: str, **values: Any) -> None:
        """Change columns of an employee in the roster."""
        for column, value in values.items():
            self.execute(f"UPDATE roster SET {column} = %s WHERE person = %s", value, person)

    def objects(self) -> list[str]:
        """Return the keys of all objects in the extract store."""
        return [version.key for version in self.store.list_versions("")]

    def deliver(self, request: UseRequest | None = None, **more: Any) -> UseRun:
        """Approve a request and deliver its extract, and return the run."""
        run = self.start(request=(request or self.request(**more)).id)
        run.step(CHECK)
        run.answer(APPROVE, "lead")
        run.answer(APPROVE_SECOND, "officer")
        run.step(DELIVER)
        return run

    def expire(self) -> UseRun:
        """Run `expire_grants`, and return the run."""
        run = self.start("expire_grants", by=None)
        run.step(EXPIRE)
        run.step(PROVE)
        return run

    def password(self, number: int) -> str:
        """Return the password of an extract, as the mail contains it."""
        with self.state.connect() as conn:
            attempt = conn.scalar(
                text("SELECT attempt FROM use_grant WHERE request_id = :id"), {"id": number}
            )
        key = f"{number}:{attempt}:clerk"
        return passwords(self.context(), [key])[key]

    def reset(self) -> None:
        """Remove all rows and files, and set the clock back."""
        self.clock.at = NOW
        self.pack = new_pack()
        self.is_last_try = False
        self.extract_spec = spec_of(self.folder)
        with psycopg.connect(self.source, autocommit=True) as database:
            database.execute("TRUNCATE customer, roster")
            with database.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO roster VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", EMPLOYEES
                )
        with self.state.begin() as conn:
            conn.execute(text("SET LOCAL session_replication_role = replica"))
            for table in (
                "use_subject", "use_attempt", "use_opening", "use_grant", "use_request_key",
                "use_request_run", "use_request", "approval_refusal", "approval_decision",
                "approval_request", "run_step", "notification", "erasure_request", "legal_hold",
            ):  # fmt: skip
                conn.execute(text(f"DELETE FROM {table}"))
        for key in self.objects():
            self.store.delete(key)


@dataclass
class UseRun:
    """A run whose steps a test executes as tasks of the workflow do.

    Attributes:
        company: the company.
        run: DAG id and run id.
        by: account of the person who triggered the run; None for a schedule.
        parameters: parameters of the run.
        started_at: start of the run.
    """

    company: UseCompany
    run: Run
    by: str | None
    parameters: Mapping[str, Any]
    started_at: datetime

    @property
    def context(self) -> RunContext[UseRules]:
        """The context of the run's tasks."""
        task = TaskState(
            triggered_at=self.started_at,
            started_at=self.started_at,
            is_last_try=self.company.is_last_try,
        )
        return self.company.context(
            self.run, triggered_by=self.by, parameters=self.parameters, task=task
        )

    def step(self, step: Step[UseRules, Any]) -> StepRecord:
        """Execute a step, store its record, and return it."""
        findings = StepFindings(step.name, step.clause)
        return self._store(findings.record(step.work(self.context, findings)))

    def ask(self, human: HumanTask[UseRules, UseApproval]) -> RequiredAction | UseApproval:
        """Return the required action of a human task."""
        action = human.ask(self.context, StepFindings(human.name, human.clause))
        if isinstance(action, UseApproval):
            self._store(StepFindings(human.name, human.clause).record(action))
        return action

    def answer(
        self,
        human: HumanTask[UseRules, UseApproval],
        by: str | None,
        option: str = "Approve",
        *,
        form: RequiredAction | None = None,
        reason: str = "not needed",
    ) -> StepRecord | None:
        """Answer a human task, and return its record; None if no decision was required."""
        action = form or self.ask(human)
        if not isinstance(action, RequiredAction):
            return None
        at = self.company.clock.now() if by else None
        answer = Answer(option if by else "", reason, by, at, content=action.content)
        findings = StepFindings(human.name, human.clause)
        return self._store(findings.record(human.store_answer(self.context, findings, answer)))

    def verify(self) -> StepRecord:
        """Execute the step that reads the extract back."""
        return self.step(VERIFY)

    def _store(self, record: StepRecord) -> StepRecord:
        with self.company.state.begin() as conn:
            record_step(conn, self.run.dag_id, self.run.run_id, record, self.company.clock)
        return record


def content(by: str = "clerk", keys: frozenset[str] = frozenset(), **more: Any) -> RequestContent:
    """Return the content of a request for active customers, or for the customers with keys."""
    filters: list[dict[str, Any]] = [{"column": "status", "kind": "code", "values": ["active"]}]
    if keys:
        filters = [{"column": "customer_id", "kind": "key"}]
    values = {
        "requester": by,
        "purpose": "delivery",
        "database": "shop",
        "collection": "customer",
        "fields": ["customer_id", "name", "phone", "weight"],
        "filters": filters,
        "days": 3,
        "case": "C-17",
        "form": "zip",
    }
    return make_content(values | more, keys)


def new_pack(rules: UseRules = RULES) -> PolicyPack:
    """Return the policy pack of the company."""
    columns = ("customer_id", "name", "phone", "id_number", "birth_date", "status", "created_at")
    fields = {
        name: MappedField(
            name=name,
            categories=("user.name",) if name in _PERSONAL else ("system.operations",),
            primary_key=name == "customer_id",
        )
        for name in (*columns, "weight", "note")
    }
    collection = MappedCollection(
        name="customer", schema_name="public", table="customer", fields=fields
    )
    needed = ("customer_id", "name", "phone", "id_number")
    purpose = Purpose.model_validate(
        {
            "id": "delivery",
            "title": {"en": "Delivery", "zh-CN": "寄递"},
            "basis": "contract",
            "fields": {"shop": {"customer": needed}},
        }
    )
    role = Role.model_validate(
        {"id": "information_management", "title": {"en": "IM", "zh-CN": "信息管理"}}
    )
    pack = pack_of(
        {"shop": "shop_db"},
        {USE.file: rules},
        purposes=(purpose,),
        roles={role.id: role},
        calendar=Calendar(),
    )
    database = MappedDatabase(
        name="shop",
        title=verbatim("Shop"),
        connection="shop_db",
        schema_name="public",
        rto=timedelta(hours=1),
        rpo=timedelta(hours=1),
        collections={"customer": collection},
    )
    return pack.model_copy(update={"databases": {"shop": database}})


def spec_of(folder: Path) -> ConnectionSpec:
    """Return the connection of an extract store in a folder."""
    return ConnectionSpec(STORE, "fs", extra={"path": str(folder), "password_key": MASTER})


@contextmanager
def new_company(server: EmbeddedPostgres, state: str, folder: Path) -> Iterator[UseCompany]:
    """Create the databases and the store of a company, and yield the company."""
    folder.mkdir(exist_ok=True)
    with temporary_database(server) as shop, temporary_database(server, state) as state_name:
        source = server.conninfo(shop)
        with psycopg.connect(source, autocommit=True) as database:
            database.execute(TABLES)
        engine = pooled(server.conninfo(state_name))
        try:
            yield UseCompany(source, engine, folder, SettableClock(), new_pack(), spec_of(folder))
        finally:
            engine.dispose()


def hold(company: UseCompany, kind: HoldKind, value: str) -> int:
    """Place a legal hold on records, and return its number."""
    with company.state.begin() as conn:
        placed = holds.add(
            conn, company.clock, kind=kind, value=value, reason="court order", owner="legal",
            case_ref="2026-17", review_on=company.clock.now().date() + timedelta(days=30),
        )  # fmt: skip
    return placed.id


def release_hold(company: UseCompany, number: int) -> None:
    """Release a legal hold."""
    with company.state.begin() as conn:
        holds.release(conn, company.clock, number, released_by="legal", reason="case closed")


def drop_logins(source: str, grantor: str = "") -> None:
    """Drop all transient logins, which other tests of the same server would find.

    Args:
        source: connection string of the database, with a superuser's login.
        grantor: role that granted the logins the right to connect; empty if none did.
    """
    with psycopg.connect(source, autocommit=True) as admin:
        rows = admin.execute(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [LOGIN_PREFIX]
        ).fetchall()
        for (name,) in rows:
            role, database = sql.Identifier(name), sql.Identifier(admin.info.dbname)
            admin.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(role))
            admin.execute(sql.SQL("DROP OWNED BY {}").format(role))
            if grantor:
                admin.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(grantor)))
                revoke = sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}")
                admin.execute(revoke.format(database, role))
                admin.execute("RESET ROLE")
            admin.execute(sql.SQL("DROP ROLE {}").format(role))


def erase(company: UseCompany, subject: str) -> None:
    """Enter an erasure request of a data subject."""
    with company.state.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO erasure_request (database, subject, reference, received_on, due_on,"
                " entered_by, entered_at) VALUES ('shop', :subject, 'R', '2026-11-30',"
                " '2026-12-30', 'x', :at)"
            ),
            {"subject": subject, "at": company.clock.now()},
        )
