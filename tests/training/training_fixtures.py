"""Fixtures: a company with people and courses, and a state database, without Airflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, text

from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.policy.rules import Calendar, Control, NotificationRules, Role
from include.services.clock import FixedClock
from include.state.tables import metadata
from include.training.obligations import Due, Row, Waiver, compute_obligations
from include.training.rules import TRAINING, TrainingRules, thresholds_on
from include.training.sources import COLUMNS, Sources, open_sources
from include.workdays.calendar import Workdays
from include.workflow.run_context import RunContext
from tests.support.contexts import pack_of, run_context
from tests.support.databases import pooled, temporary_database

DAG = "remind_training"
ZONE = ZoneInfo("Asia/Shanghai")
WORKDAYS = Workdays(Calendar())
MONDAY = date(2026, 3, 2)
HR = Role(
    id="human_resources",
    title={"en": "Human resources", "zh-CN": "人力资源部门"},
    mail=("hr@firm.example",),
)


def rules(**more: Any) -> TrainingRules:
    """Return the rules of a training.yaml that reads the company's tables."""
    sources = {
        name: {"database": "firm", "sql": f"SELECT * FROM {name} WHERE true OR 'x' LIKE '%y'"}
        for name in COLUMNS
    }
    return TrainingRules.model_validate({**sources, "owner": HR.id, **more})


@dataclass
class TrainingCompany:
    """A company whose people have to take courses.

    Attributes:
        source: connection string of the company's database.
        state: connection string of the state database.
        today: current day; tests change it.
        time: time of day at which runs start.
        rules: rules of training.yaml.
        calendar: calendar of the policy pack.
        owner: role that is responsible for training.
        controls: controls of the policy pack.
        pool: engine of the state database that replaces the default engine.
    """

    source: str
    state: str
    today: date = MONDAY
    time: time = time(9, 30)
    rules: TrainingRules = field(default_factory=rules)
    calendar: Calendar = field(default_factory=Calendar)
    owner: Role = HR
    controls: tuple[Control, ...] = ()
    pool: Engine | None = None
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = self.pool or pooled(self.state)

    @property
    def workdays(self) -> Workdays:
        return Workdays(self.calendar)

    def context(self, run: str = "r1") -> RunContext[TrainingRules]:
        pack = pack_of(
            {"firm": "firm_db"},
            {TRAINING.file: self.rules},
            calendar=self.calendar,
            notices=NotificationRules(may_opt_out=("training.department",)),
            roles={self.owner.id: self.owner},
            controls=self.controls,
        )
        clock = FixedClock(self.now())
        databases = {"firm": self.source}
        return run_context(TRAINING, pack, databases, self.engine, clock, Run(DAG, run))

    def now(self) -> datetime:
        return datetime.combine(self.today, self.time, ZONE)

    @contextmanager
    def open(self) -> Iterator[Sources]:
        with open_sources(self.context()) as sources:
            yield sources

    def add(self, table: str, **values: Any) -> None:
        """Insert a row into a table; columns without a value are null."""
        columns = SQL(", ").join(map(Identifier, values))
        placeholders = SQL(", ").join(SQL("%s") * len(values))
        query = SQL("INSERT INTO {} ({}) VALUES ({})").format(
            Identifier(table), columns, placeholders
        )
        self.execute(query, list(values.values()))

    def add_person(self, person: str = "P1", joined_on: str = "2020-01-06", **more: Any) -> str:
        defaults = {
            "name": f"Name of {person}",
            "mail": f"{person.lower()}@firm.example",
            "department": "North",
            "head": False,
            "access": False,
        }
        self.add("people", person=person, joined_on=joined_on, **(defaults | more))
        return person

    def add_course(self, course: str = "LAW", **more: Any) -> str:
        defaults = {
            "title": f"Course {course}",
            "topic": "law",
            "version": 1,
            "published_on": "2019-01-01",
            "within_days": 60,
        }
        self.add("courses", course=course, **(defaults | more))
        return course

    def add_completion(
        self, day: str, person: str = "P1", course: str = "LAW", **more: Any
    ) -> None:
        defaults = {"version": 1, "passed": True}
        self.add("completions", person=person, course=course, completed_on=day, **(defaults | more))

    def execute(self, query: Any, values: Sequence[Any] = ()) -> None:
        with psycopg.connect(self.source, autocommit=True) as connection:
            connection.execute(query, values)

    def rows(self, waived: Sequence[Waiver] = ()) -> list[Row]:
        """Return all rows that `compute_obligations` yields today."""
        with self.open() as sources:
            rows = compute_obligations(
                sources,
                day=self.today,
                thresholds=thresholds_on(self.rules.ladder, self.workdays, self.today),
                waived=waived,
                grace=self.rules.leave_grace,
            )
            return list(rows)

    def due_courses(self, waived: Sequence[Waiver] = ()) -> list[Due]:
        """Return the obligations that reached a reminder stage, sorted by person and course."""
        courses = [row for row in self.rows(waived) if isinstance(row, Due)]
        return sorted(courses, key=lambda due: (due.person, due.course))

    def reset(self) -> None:
        """Empty all tables and restore the defaults."""
        self.execute("TRUNCATE people, courses, completions")
        names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
        with self.engine.begin() as conn:
            conn.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
        self.today, self.time = MONDAY, time(9, 30)
        self.rules, self.calendar, self.owner = rules(), Calendar(), HR


@contextmanager
def new_company(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[TrainingCompany]:
    """Create a company and its databases, and drop the databases afterwards."""
    with temporary_database(postgres) as firm, temporary_database(postgres, migrated_once) as state:
        with psycopg.connect(postgres.conninfo(firm), autocommit=True) as connection:
            for table, columns in COLUMNS.items():
                column_list = ", ".join(f"{name} {kind}" for name, kind in columns.items())
                connection.execute(f"CREATE TABLE {table} ({column_list})")
        yield TrainingCompany(postgres.conninfo(firm), postgres.conninfo(state))
