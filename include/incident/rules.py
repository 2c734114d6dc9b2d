"""The rules of incident.yaml: grades, people, clocks, checklists, and the scope of each database.

SQL of the scope is that of the pack's author, who is trusted as the author of a migration is;
docs/incidents.md explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from include.messages import Message
from include.policy.mapping import Group, Staff
from include.policy.period import Period, PositivePeriod
from include.policy.rates import ExactRate, parse_rate
from include.policy.rules import Basis, Identifier, Name, Rule, Sql, Text, Texts, in_languages, some
from include.policy.section import SectionRules


class Lookup(Rule):
    """A name that stands in another table: the row has its key there.

    Said like this and not as a subquery, so that PostgreSQL looks each name up once and not for
    every row of a log.

    Attributes:
        column: of the row.
        collection: with the names.
        key: column there that equals the row's.
        name: column there with the name, as people write it.
    """

    column: Name
    collection: Name
    key: Name
    name: Name


Named = Sql | Lookup
"""A name as people write it: an SQL expression over the row, or where it is looked up."""


class Subject(Rule):
    """Where the data subjects of a database are.

    Attributes:
        collection: one row a person, named ``s`` in conditions.
        key: column with the person's key.
        minor: SQL condition over ``s``: under 14 at ``:moment``; None where the age is not known.
        department: that answers for the record, over ``s``.
        mail: column with an address for notices; None where people are told by other means.
    """

    collection: Name
    key: Name
    minor: Sql | None = None
    department: Named | None = None
    mail: Name | None = None


class Records(Rule):
    """Records about data subjects.

    Attributes:
        collection: rows, named ``r`` in expressions.
        subjects: SQL expressions over ``r`` that give the keys of those whom a row is about.
        at: SQL expression over ``r``: when it was made; None where rows have no moment.
        department: over ``r``; the subject's where it has none.
        named: SQL expressions over ``r``: what people call such a record when they list some, each
            of which will do; none where such records are not listed.
    """

    collection: Name
    subjects: Annotated[tuple[Sql, ...], AfterValidator(some)]
    at: Sql | None = None
    department: Named | None = None
    named: tuple[Sql, ...] = ()


class AccessLog(Rule):
    """The log of accesses: whose records an account opened, and what is kept as evidence.

    Attributes:
        collection: rows, named ``a`` in expressions.
        subject: SQL expression over ``a``: key of the data subject.
        account: as people write it, over ``a``.
        at: column with the moment.
        columns: of the evidence extract; keys and moments, nothing that says more of a customer.
    """

    collection: Name
    subject: Sql
    account: Named
    at: Name
    columns: Annotated[tuple[Name, ...], AfterValidator(some)]


class ShareLog(Rule):
    """The log of what partners were given.

    Attributes:
        collection: rows, named ``g`` in expressions.
        subject: SQL expression over ``g``: key of the data subject.
        partner: SQL expression over ``g``: the partner's number, as text.
        at: column with the moment.
        columns: of the evidence extract; keys and moments, nothing that says more of a customer.
    """

    collection: Name
    subject: Sql
    partner: Sql
    at: Name
    columns: Annotated[tuple[Name, ...], AfterValidator(some)]


class ScopeRule(Rule):
    """How what is affected in one database is counted.

    Attributes:
        database: of the data map.
        connection: id of the Airflow connection that reads it for incidents, where it is not that
            of all: one connection is one database.
        subject: the data subjects.
        records: what there is about them, each collection once.
        access: the log of accesses; None where there is none.
        shares: the log of sharing; None where there is none.
    """

    database: Name
    connection: Text | None = None
    subject: Subject
    records: Annotated[tuple[Records, ...], AfterValidator(some)]
    access: AccessLog | None = None
    shares: ShareLog | None = None


Milestone = Literal[
    "opened", "team_called", "graded", "contained", "preserved", "reported", "individuals_told",
    "closed", "summarised",
]  # fmt: skip
"""What ends a clock. ``reported`` is of one authority; ``individuals_told`` is also reached by the
recorded decision that people need not be told."""

HumanStep = Literal[
    "contain", "grade", "report", "impact", "decide", "report_rest", "close", "review", "summary"
]
HUMAN_STEPS: tuple[HumanStep, ...] = get_args(HumanStep)

CHECKLIST_FIELDS: tuple[str, str] = ("contained_at", "notes")
"""Fields beside the boxes of a checklist; no item may be called so."""
FIGURES: tuple[str, ...] = ("people", "sensitive", "minors")
"""What grades are reached by."""

People = Annotated[int, Field(ge=0, le=10_000_000_000)]
Category = Annotated[str, StringConstraints(pattern=r"^(user|system)(\.[a-z_]+)*\z")]


class Titled(Rule):
    """Something with a stable name and a title.

    Attributes:
        id: stable name.
        title: by language.
    """

    id: Identifier
    title: Texts

    @property
    def message(self) -> Message:
        """The title for a report."""
        return in_languages(self.title)


class Duty(Titled):
    """What somebody of the incident team answers for.

    Attributes:
        role: role of roles.yaml; the call to the team goes to its addresses.
        people: those who do it.
        deputies: those who are asked too where nobody answers in time.
    """

    role: Identifier
    people: Group
    deputies: Group = Group()


class Grade(Titled):
    """How bad an incident is; reached by any of its figures, by none of them if it has none.

    Attributes:
        people: data subjects at least.
        sensitive: data subjects of whom sensitive information is affected, at least.
        minors: data subjects under 14, at least.
        basis: the source of the figures.
    """

    people: People | None = None
    sensitive: People | None = None
    minors: People | None = None
    basis: Basis


class Applies(Titled):
    """A rule for some incidents.

    Attributes:
        grades: to which it applies; empty means all, and those not graded yet.
        types: of incidents to which it applies; empty means all.
        critical: only where the company's systems are critical information infrastructure (true),
            or are not (false); null means both.
    """

    grades: tuple[Identifier, ...] = ()
    types: tuple[Identifier, ...] = ()
    critical: bool | None = None


class Authority(Applies):
    """An authority that is reported to.

    Attributes:
        how: how the report is handed in: portal, hotline, address.
        basis: the source of the duty.
    """

    how: Texts
    basis: Basis


class ClockRule(Applies):
    """A time limit for something to be done.

    Attributes:
        begins: with awareness of the incident, or with the end of its handling.
        within: the time that there is.
        ends: the milestone that stops it.
        authority: whom a ``reported`` is to; None otherwise.
        immediate: whether the source says "at once", so that the figure is the company's.
        basis: the source of the duty, or ``business``.
    """

    begins: Literal["awareness", "closing"] = "awareness"
    within: PositivePeriod
    ends: Milestone
    authority: Identifier | None = None
    immediate: bool = False
    basis: Basis

    @model_validator(mode="after")
    def _of_one_authority(self) -> ClockRule:
        if (self.ends == "reported") != (self.authority is not None):
            raise ValueError("a clock that ends with `reported` names its authority, no other does")
        return self


class ChecklistItem(Rule):
    """One thing to do to contain an incident.

    Attributes:
        id: stable name.
        text: what to do, by language.
    """

    id: Identifier
    text: Texts

    @property
    def message(self) -> Message:
        """The text for a report."""
        return in_languages(self.text)


class IncidentType(Titled):
    """A kind of incident and what contains it.

    Attributes:
        help: when to choose it, by language.
        checklist: what is done at once.
        partner: whether it happened at a partner, whose security review is opened again.
    """

    help: Texts
    checklist: Annotated[tuple[ChecklistItem, ...], AfterValidator(some), Field(max_length=30)]
    partner: bool = False


class HoldRule(Rule):
    """The legal holds that an incident places.

    Attributes:
        each_up_to: so many data subjects are held one by one; beyond, their database is held.
        review_after: period until somebody asks whether a hold is still needed.
    """

    each_up_to: Annotated[int, Field(ge=0, le=100_000)] = 1_000
    review_after: PositivePeriod = Period.parse("P90D")


class Letter(Rule):
    """What individual notices say beside the facts of the incident.

    Attributes:
        heading: subject of the letter.
        opening: its first paragraph.
        closing: its last one.
        contact: whom people may ask, and how.
        unusable_at_most: share of affected people without an address of their own from which on
            the decision to tell has to say that the list was looked at.
        shared_by: so many people with one and the same address make it nobody's own.
    """

    heading: Texts
    opening: Texts
    closing: Texts
    contact: Texts
    unusable_at_most: ExactRate = parse_rate("20%")
    shared_by: Annotated[int, Field(ge=2, le=1_000)] = 5


class Wake(Rule):
    """How people are woken about clocks.

    Attributes:
        before: periods before a clock runs out at which those who have to act are told, once each;
            of a short clock those that lie after its beginning.
        after: periods after it ran out, once each; management is told too.
    """

    before: tuple[PositivePeriod, ...] = tuple(
        Period.parse(one) for one in ("P7D", "P1D", "PT1H", "PT15M")
    )
    after: tuple[PositivePeriod, ...] = tuple(
        Period.parse(one) for one in ("PT1S", "PT1H", "PT6H", "P1D", "P3D", "P7D")
    )


class Counts(Rule):
    """What a scenario says is affected.

    Attributes:
        subjects: people.
        records: records.
        sensitive: people of whom sensitive information is affected.
        minors: people under 14.
        categories: data categories.
    """

    subjects: People
    records: People
    sensitive: People = 0
    minors: People = 0
    categories: tuple[Category, ...] = ()


class Scenario(Titled):
    """A drill around the table.

    Attributes:
        type: of the incident.
        story: what the players are told, by language.
        aware_before: period between awareness and the beginning of the drill.
        counts: what is affected; nothing is counted in a drill.
    """

    type: Identifier
    story: Texts
    aware_before: PositivePeriod | None = None
    counts: Counts


class IncidentRules(SectionRules):
    """incident.yaml.

    Attributes:
        connection: id of the Airflow connection that reads the mapped databases for incidents; a
            database's own where it is not configured.
        numbering: what numbers begin with: ``INC`` makes ``INC-2026-0001``.
        company: the unit, as reports name it, by language.
        place: where its systems are, as reports name it, by language.
        critical: whether its systems are critical information infrastructure.
        staff: where the people are.
        team: who answers for what.
        management: duty that is asked too where nobody answers, and told of clocks that ran out.
        steps: human step -> duty that does it.
        answer_within: how long a step waits before it asks deputies and management too.
        duplicate_within: the same form again within this time is the same incident.
        types: of incidents.
        grades: least first.
        authorities: whom incidents are reported to.
        clocks: by when what has to be done.
        wake: how people are woken about them.
        sensitive: data categories that count as sensitive, with those below them.
        scope: what is affected, by database.
        hold: legal holds.
        letter: individual notices.
        actions_within: period in which corrective actions are due where nobody says otherwise.
        scenarios: of drills.
    """

    connection: Text = "incident_db"
    numbering: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,8}\z")] = "INC"
    company: Texts
    place: Texts
    critical: bool = False
    staff: Staff
    team: Annotated[tuple[Duty, ...], AfterValidator(some)]
    management: Identifier
    steps: Mapping[HumanStep, Identifier]
    answer_within: PositivePeriod = Period.parse("PT30M")
    duplicate_within: PositivePeriod = Period.parse("PT12H")
    types: Annotated[tuple[IncidentType, ...], AfterValidator(some)]
    grades: Annotated[tuple[Grade, ...], AfterValidator(some)]
    authorities: tuple[Authority, ...] = ()
    clocks: Annotated[tuple[ClockRule, ...], AfterValidator(some)]
    wake: Wake = Wake()
    sensitive: tuple[Category, ...] = ()
    scope: Annotated[tuple[ScopeRule, ...], AfterValidator(some)]
    hold: HoldRule = HoldRule()
    letter: Letter
    actions_within: PositivePeriod = Period.parse("P90D")
    scenarios: tuple[Scenario, ...] = ()

    @model_validator(mode="after")
    def _every_step_is_somebodys(self) -> IncidentRules:
        if left := [step for step in HUMAN_STEPS if step not in self.steps]:
            raise ValueError(f"steps names nobody for {', '.join(left)}")
        return self

    def type(self, name: str) -> IncidentType:
        """The type of that name; raises KeyError."""
        return {kind.id: kind for kind in self.types}[name]

    def duty(self, name: str) -> Duty:
        """The duty of that name; raises KeyError."""
        return {duty.id: duty for duty in self.team}[name]

    def grade(self, name: str) -> Grade:
        """The grade of that name; raises KeyError."""
        return {grade.id: grade for grade in self.grades}[name]

    def authority(self, name: str) -> Authority:
        """The authority of that name; raises KeyError."""
        return {authority.id: authority for authority in self.authorities}[name]

    def scenario(self, name: str) -> Scenario:
        """The scenario of that name; raises KeyError."""
        return {scenario.id: scenario for scenario in self.scenarios}[name]

    @property
    def connections(self) -> tuple[str, ...]:
        """The ids of the connections with which incidents read mapped databases."""
        own = (scope.connection for scope in self.scope if scope.connection)
        return tuple(dict.fromkeys([self.connection, *own]))

    def connection_to(self, database: str) -> str:
        """Return the id of the connection with which incidents read a mapped database."""
        own = {scope.database: scope.connection for scope in self.scope}
        return own.get(database) or self.connection

    def scope_of(self, database: str) -> ScopeRule:
        """The scope rule of that database; raises KeyError."""
        return {scope.database: scope for scope in self.scope}[database]
