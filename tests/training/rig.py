"""A company whose people have to be trained, with a state database and no Airflow."""

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
from include.policy.rules import Calendar, Control, NoticeRules, Role
from include.services.clock import FixedClock
from include.state.tables import metadata
from include.training.obligations import Due, Row, Waiver, everything
from include.training.rules import TRAINING, TrainingRules, reached
from include.training.sources import COLUMNS, Sources, open_sources
from include.workdays.calendar import Workdays
from include.workflow.run_context import RunContext
from tests.support.contexts import pack_of, run_context
from tests.support.databases import fresh, pooled

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
    """A whole training.yaml over the company's tables."""
    sources = {
        name: {"database": "firm", "sql": f"SELECT * FROM {name} WHERE true OR 'x' LIKE '%y'"}
        for name in COLUMNS
    }
    return TrainingRules.model_validate({**sources, "owner": HR.id, **more})


@dataclass
class Rig:
    """The company.

    Attributes:
        source: connection string of its database.
        state: of the state database.
        today: the day, which tests move on.
        time: of day at which runs begin.
        rules: training.yaml.
        calendar: of the pack.
        owner: the role of human resources.
        controls: of the pack.
        pool: an engine of the state database in place of one that always connects anew.
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
            notices=NoticeRules(may_opt_out=("training.department",)),
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
        with open_sources(self.context()) as found:
            yield found

    def add(self, table: str, **values: Any) -> None:
        """Add a row; what is not said is null."""
        columns = SQL(", ").join(map(Identifier, values))
        places = SQL(", ").join(SQL("%s") * len(values))
        query = SQL("INSERT INTO {} ({}) VALUES ({})").format(Identifier(table), columns, places)
        self.execute(query, list(values.values()))

    def person(self, person: str = "P1", joined_on: str = "2020-01-06", **more: Any) -> str:
        usual = {
            "name": f"Name of {person}",
            "mail": f"{person.lower()}@firm.example",
            "department": "North",
            "head": False,
            "access": False,
        }
        self.add("people", person=person, joined_on=joined_on, **(usual | more))
        return person

    def course(self, course: str = "LAW", **more: Any) -> str:
        usual = {
            "title": f"Course {course}",
            "topic": "law",
            "version": 1,
            "published_on": "2019-01-01",
            "within_days": 60,
        }
        self.add("courses", course=course, **(usual | more))
        return course

    def took(self, day: str, person: str = "P1", course: str = "LAW", **more: Any) -> None:
        usual = {"version": 1, "passed": True}
        self.add("completions", person=person, course=course, completed_on=day, **(usual | more))

    def execute(self, query: Any, values: Sequence[Any] = ()) -> None:
        with psycopg.connect(self.source, autocommit=True) as connection:
            connection.execute(query, values)

    def rows(self, waived: Sequence[Waiver] = ()) -> list[Row]:
        """All that is worked out for the day."""
        with self.open() as sources:
            found = everything(
                sources,
                day=self.today,
                reached=reached(self.rules.ladder, self.workdays, self.today),
                waived=waived,
                grace=self.rules.leave_grace,
            )
            return list(found)

    def due(self, waived: Sequence[Waiver] = ()) -> list[Due]:
        """Obligations on a rung, by person and course."""
        found = [one for one in self.rows(waived) if isinstance(one, Due)]
        return sorted(found, key=lambda one: (one.person, one.course))

    def empty(self) -> None:
        """Make it as if it were the first day."""
        self.execute("TRUNCATE people, courses, completions")
        names = ", ".join(f'"{one.name}"' for one in metadata.sorted_tables)
        with self.engine.begin() as conn:
            conn.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
        self.today, self.time = MONDAY, time(9, 30)
        self.rules, self.calendar, self.owner = rules(), Calendar(), HR


@contextmanager
def new_rig(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Rig]:
    """Make a company; its databases are dropped afterwards."""
    with fresh(postgres) as firm, fresh(postgres, migrated_once) as state:
        with psycopg.connect(postgres.conninfo(firm), autocommit=True) as connection:
            for table, columns in COLUMNS.items():
                named = ", ".join(f"{name} {kind}" for name, kind in columns.items())
                connection.execute(f"CREATE TABLE {table} ({named})")
        yield Rig(postgres.conninfo(firm), postgres.conninfo(state))
