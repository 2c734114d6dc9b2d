"""The rules of incident.yaml: team, time limits, grades, checklists, and the scope per database.

The SQL in incident.yaml is written by the author of the policy pack, who is trusted like the author
of a database migration. docs/reference/policy-pack/incident.md explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from include.messages import Message
from include.policy.mapping import StaffGroup, StaffTable
from include.policy.period import Period, PositivePeriod
from include.policy.rates import ExactRate, parse_rate
from include.policy.rules import (
    Basis,
    Identifier,
    Name,
    Rule,
    Sql,
    Text,
    Texts,
    Unit,
    require_items,
    translated_message,
)
from include.policy.section import SectionRules


class Lookup(Rule):
    """A rule to read a name from another table by a foreign key.

    PostgreSQL looks up each name only once. With a subquery, it would look up the name for every
    row of a log.

    Attributes:
        column: Foreign key column of the row for which a name is read.
        collection: Collection that contains the names.
        key: Column to which the foreign key refers, in the collection with the names.
        name: Column that contains the name, in the collection with the names.
    """

    column: Name
    collection: Name
    key: Name
    name: Name


Named = Sql | Lookup
"""A name as people write it: an SQL expression over the row, or a lookup in another table."""


class Subject(Rule):
    """Where the data subjects of a database are stored.

    Attributes:
        collection: Collection with one row per data subject. In SQL, the alias of a row is ``s``.
        key: Column with the key of the data subject.
        minor: SQL condition over ``s`` that is true if the data subject was under 14 at
            ``:moment``, the time at which the company became aware of the incident. Without it, the
            age of every data subject counts as unknown.
        department: Department that is responsible for the data subject: an SQL expression over
            ``s``, or a lookup in another collection.
        mail: Column with the mail address to which notices are sent. Without it, no notice is sent
            by mail.
    """

    collection: Name
    key: Name
    minor: Sql | None = None
    department: Named | None = None
    mail: Name | None = None


class Records(Rule):
    """A collection of records about data subjects.

    Attributes:
        collection: Collection of the records. In SQL, the alias of a record is ``r``.
        subjects: SQL expressions over ``r`` that return the keys of the record's data subjects. A
            plain column with a foreign key is fastest.
        at: SQL expression over ``r`` that returns the time of the record. Without it, a time window
            does not exclude any of these records.
        department: Department of the record: an SQL expression over ``r``, or a lookup in another
            collection; default: the department of the data subject.
        named: SQL expressions over ``r`` that return keys, such as waybill numbers. With these
            keys, a person can list single records as affected. Without ``named``, single records
            cannot be listed.
    """

    collection: Name
    subjects: Annotated[tuple[Sql, ...], AfterValidator(require_items)]
    at: Sql | None = None
    department: Named | None = None
    named: tuple[Sql, ...] = ()


class AccessLog(Rule):
    """The log of accesses to records of data subjects.

    Attributes:
        collection: Collection of the log. In SQL, the alias of a log entry is ``a``.
        subject: SQL expression over ``a`` that returns the key of the data subject.
        account: Account that opened the record: an SQL expression over ``a``, or a lookup in
            another collection.
        at: Column with the time of the access.
        columns: Columns of the log that the evidence extract contains. Choose keys and times, and
            no other customer data.
    """

    collection: Name
    subject: Sql
    account: Named
    at: Name
    columns: Annotated[tuple[Name, ...], AfterValidator(require_items)]


class ShareLog(Rule):
    """The log of data that was shared with partners.

    Attributes:
        collection: Collection of the log. In SQL, the alias of a log entry is ``g``.
        subject: SQL expression over ``g`` that returns the key of the data subject.
        partner: SQL expression over ``g`` that returns the number of the partner as text.
        at: Column with the time of the sharing.
        columns: Columns of the log that the evidence extract contains. Choose keys and times, and
            no other customer data.
    """

    collection: Name
    subject: Sql
    partner: Sql
    at: Name
    columns: Annotated[tuple[Name, ...], AfterValidator(require_items)]


class ScopeRule(Rule):
    """A rule that defines how the affected records of one database are counted.

    Attributes:
        database: Name of the database in the data map.
        connection: Id of the Airflow connection that reads this database for incidents; default:
            the ``connection`` at the top level of incident.yaml.
        subject: Data subjects of the database.
        records: Records about the data subjects. List each collection once.
        access: Log of accesses to records, if the database has one.
        shares: Log of data that was shared with partners, if the database has one.
    """

    database: Name
    connection: Text | None = None
    subject: Subject
    records: Annotated[tuple[Records, ...], AfterValidator(require_items)]
    access: AccessLog | None = None
    shares: ShareLog | None = None


Milestone = Literal[
    "opened", "team_called", "graded", "contained", "preserved", "reported", "individuals_told",
    "closed", "summarised",
]  # fmt: skip
"""Milestones that end a time limit. ``reported`` belongs to one authority. ``individuals_told`` is
also reached by the recorded decision not to notify people."""

HumanStep = Literal[
    "contain", "grade", "report", "impact", "decide", "report_rest", "close", "review", "summary"
]
HUMAN_STEPS: tuple[HumanStep, ...] = get_args(HumanStep)

CHECKLIST_FIELDS: tuple[str, str] = ("contained_at", "notes")
"""Form fields besides the boxes of a checklist; no item may have such an id."""
FIGURES: tuple[str, ...] = ("people", "sensitive", "minors")
"""Figures that determine the grade."""

People = Annotated[int, Field(ge=0, le=10_000_000_000), Unit("data subjects")]
Category = Annotated[str, StringConstraints(pattern=r"^(user|system)(\.[a-z_]+)*\z")]


class Titled(Rule):
    """A rule with an id and a title.

    Attributes:
        id: Id that must not change, because evidence refers to it.
        title: Title for display.
    """

    id: Identifier
    title: Texts

    @property
    def message(self) -> Message:
        """The title as a translated text for reports."""
        return translated_message(self.title)


class Duty(Titled):
    """A duty of the incident team.

    Attributes:
        role: Role of roles.yaml. The people of this duty are called at the addresses of this role.
        people: People who have the duty.
        deputies: People who may answer a step too if the people of the duty did not answer in time.
    """

    role: Identifier
    people: StaffGroup
    deputies: StaffGroup = StaffGroup()


class Grade(Titled):
    """A grade of severity.

    An incident has the grade if it reaches at least one of the numbers below.

    A grade without numbers applies to all incidents.

    Attributes:
        people: Smallest number of affected data subjects with which an incident has this grade.
        sensitive: Smallest number of data subjects with affected sensitive data with which an
            incident has this grade.
        minors: Smallest number of affected data subjects under 14 with which an incident has this
            grade.
        basis: Law or standard that sets the numbers, or ``business`` for the company's own rule.
    """

    people: People | None = None
    sensitive: People | None = None
    minors: People | None = None
    basis: Basis


class ConditionalRule(Titled):
    """A rule that can be limited to certain incidents.

    Attributes:
        grades: Grades of incidents to which this rule applies. An empty list means all incidents,
            including those without a grade.
        types: Types of incidents to which this rule applies. An empty list means all types.
        critical: ``true``: this rule applies only to critical information infrastructure.
            ``false``: it applies only to other systems. ``null``: it applies to both.
    """

    grades: tuple[Identifier, ...] = ()
    types: tuple[Identifier, ...] = ()
    critical: bool | None = None


class Authority(ConditionalRule):
    """An authority to which incidents are reported.

    Attributes:
        how: How to report to the authority: portal, hotline, address.
        basis: Law that requires the report, or ``business`` for the company's own rule.
    """

    how: Texts
    basis: Basis


class TimeLimitRule(ConditionalRule):
    """A time limit.

    Attributes:
        begins: Event from which the time limit counts: ``awareness`` of the incident, or
            ``closing`` of the incident.
        within: Length of the time limit.
        ends: Milestone that has to be reached within the time limit.
        authority: Authority to which the report is handed in. It is required for the milestone
            ``reported``, and not allowed for other milestones.
        immediate: Whether the law demands the action *at once* without a period, so that the
            company chose the length of the time limit.
        basis: Law that sets the time limit, or ``business`` for the company's own rule.
    """

    begins: Literal["awareness", "closing"] = "awareness"
    within: PositivePeriod
    ends: Milestone
    authority: Identifier | None = None
    immediate: bool = False
    basis: Basis

    @model_validator(mode="after")
    def _of_one_authority(self) -> TimeLimitRule:
        if (self.ends == "reported") != (self.authority is not None):
            raise ValueError(
                "a time limit needs `authority` if it ends with `reported`, and only then"
            )
        return self


class ChecklistItem(Rule):
    """A measure of containment in the checklist of an incident type.

    Attributes:
        id: Id that must not change. It must not be ``notes`` or ``contained_at``, which are other
            fields of the same form.
        text: Text of the measure.
    """

    id: Identifier
    text: Texts

    @property
    def message(self) -> Message:
        """The measure as a translated text for reports."""
        return translated_message(self.text)


class IncidentType(Titled):
    """A type of incident, and its checklist of containment measures.

    Attributes:
        help: Help text of the form that explains when to choose this type.
        checklist: Measures that contain an incident of this type.
        partner: Whether incidents of this type happen at a partner. In this case the security
            review of the partner is reopened.
    """

    help: Texts
    checklist: Annotated[
        tuple[ChecklistItem, ...], AfterValidator(require_items), Field(max_length=30)
    ]
    partner: bool = False


class HoldRule(Rule):
    """The rule for legal holds that an incident places.

    Attributes:
        each_up_to: Largest number of data subjects for whom single legal holds are placed. If more
            are affected, a hold is placed on their whole database.
        review_after: Time after which a person has to review the hold.
    """

    each_up_to: Annotated[int, Field(ge=0, le=100_000), Unit("data subjects")] = 1_000
    review_after: PositivePeriod = Period.parse("P90D")


class NoticeRules(Rule):
    """The company's texts in notices to data subjects.

    Attributes:
        heading: Subject of the notice.
        opening: First paragraph of the notice.
        closing: Last paragraph of the notice.
        contact: Contact at the company for questions.
        unusable_at_most: Largest acceptable share of affected data subjects to whom no notice can
            be mailed, because their address is missing, invalid or shared. If the share is larger,
            the person who decides on the notices has to confirm that the list was reviewed.
        shared_by: Number of data subjects. If at least this number of data subjects have the same
            address, no notice is sent to this address.
    """

    heading: Texts
    opening: Texts
    closing: Texts
    contact: Texts
    unusable_at_most: ExactRate = parse_rate("20%")
    shared_by: Annotated[int, Field(ge=2, le=1_000), Unit("data subjects")] = 5


class EscalationRules(Rule):
    """The rule for notifications about time limits.

    Attributes:
        before: Periods before a deadline. The responsible people are notified once at the beginning
            of each period. A period that is longer than the time limit is skipped.
        after: Periods after a missed deadline. The responsible people and the management are
            notified once at the end of each period.
    """

    before: tuple[PositivePeriod, ...] = tuple(
        Period.parse(text) for text in ("P7D", "P1D", "PT1H", "PT15M")
    )
    after: tuple[PositivePeriod, ...] = tuple(
        Period.parse(text) for text in ("PT1S", "PT1H", "PT6H", "P1D", "P3D", "P7D")
    )


class ScenarioCounts(Rule):
    """The counts that a drill's scenario assumes.

    Attributes:
        subjects: Number of affected data subjects.
        records: Number of affected records.
        sensitive: Number of data subjects with affected sensitive data.
        minors: Number of affected data subjects under 14.
        categories: Data categories that are affected.
    """

    subjects: People
    records: Annotated[int, Field(ge=0, le=10_000_000_000), Unit("records")]
    sensitive: People = 0
    minors: People = 0
    categories: tuple[Category, ...] = ()


class Scenario(Titled):
    """The scenario of an incident drill in which people discuss an invented incident.

    Attributes:
        type: Type of the incident.
        story: Description of the incident for the participants.
        aware_before: Time between awareness of the incident and the start of the drill.
        counts: Counts that the drill uses, because it counts no records in databases.
    """

    type: Identifier
    story: Texts
    aware_before: PositivePeriod | None = None
    counts: ScenarioCounts


class IncidentRules(SectionRules):
    """The team, time limits, authorities and scope of incidents.

    Attributes:
        connection: Id of the Airflow connection that reads the databases of the data maps for
            incidents. If this connection does not exist, the connections that the data maps name
            are used.
        numbering: Prefix of the numbers of incidents. With ``INC`` the first number of 2026 is
            ``INC-2026-0001``.
        company: Name of the company in reports.
        place: Location of the company's systems in reports.
        critical: Whether the company's systems are critical information infrastructure.
        staff: Table of the staff.
        team: Duties of the incident team.
        management: Duty of the management. People with this duty may answer every step that was not
            answered in time, and receive the notifications about missed time limits.
        steps: Duty that performs each step of the workflow. ``decide`` and ``impact`` need
            different duties.
        answer_within: Time after which deputies and management may answer a step too. For the steps
            ``report_rest`` and ``close`` the time is eight times as long, for ``review`` and
            ``summary`` 48 times as long.
        duplicate_within: Time within which a second submission of the same form is registered as a
            duplicate of the first incident.
        types: Types of incidents, with the measures that contain them.
        grades: Grades, from the least to the most severe. Each number of a grade is greater than
            that of the grade before.
        authorities: Authorities to which incidents are reported.
        clocks: Time limits of the response to an incident.
        wake: When people are notified about time limits.
        sensitive: Data categories that count as sensitive, with all categories below them. Data of
            people under 14 always counts as sensitive.
        scope: How affected records are counted in each database. List each database once.
        hold: Legal holds that an incident places.
        letter: The company's texts in notices to data subjects.
        actions_within: Time within which a corrective action is due. A person can enter another
            date for an action.
        scenarios: Scenarios of drills.
    """

    connection: Text = "incident_db"
    numbering: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,8}\z")] = "INC"
    company: Texts
    place: Texts
    critical: bool = False
    staff: StaffTable
    team: Annotated[tuple[Duty, ...], AfterValidator(require_items)]
    management: Identifier
    steps: Mapping[HumanStep, Identifier]
    answer_within: PositivePeriod = Period.parse("PT30M")
    duplicate_within: PositivePeriod = Period.parse("PT12H")
    types: Annotated[tuple[IncidentType, ...], AfterValidator(require_items)]
    grades: Annotated[tuple[Grade, ...], AfterValidator(require_items)]
    authorities: tuple[Authority, ...] = ()
    clocks: Annotated[tuple[TimeLimitRule, ...], AfterValidator(require_items)]
    wake: EscalationRules = EscalationRules()
    sensitive: tuple[Category, ...] = ()
    scope: Annotated[tuple[ScopeRule, ...], AfterValidator(require_items)]
    hold: HoldRule = HoldRule()
    letter: NoticeRules
    actions_within: PositivePeriod = Period.parse("P90D")
    scenarios: tuple[Scenario, ...] = ()

    @model_validator(mode="after")
    def _every_step_is_somebodys(self) -> IncidentRules:
        if left := [step for step in HUMAN_STEPS if step not in self.steps]:
            raise ValueError(f"steps needs a duty for {', '.join(left)}")
        return self

    def type(self, name: str) -> IncidentType:
        """Return the incident type with the id `name`.

        Raises:
            KeyError: incident.yaml has no such type.
        """
        return {incident_type.id: incident_type for incident_type in self.types}[name]

    def duty(self, name: str) -> Duty:
        """Return the duty of the incident team with the id `name`.

        Raises:
            KeyError: incident.yaml has no such duty.
        """
        return {duty.id: duty for duty in self.team}[name]

    def grade(self, name: str) -> Grade:
        """Return the grade with the id `name`.

        Raises:
            KeyError: incident.yaml has no such grade.
        """
        return {grade.id: grade for grade in self.grades}[name]

    def authority(self, name: str) -> Authority:
        """Return the authority with the id `name`.

        Raises:
            KeyError: incident.yaml has no such authority.
        """
        return {authority.id: authority for authority in self.authorities}[name]

    def scenario(self, name: str) -> Scenario:
        """Return the drill scenario with the id `name`.

        Raises:
            KeyError: incident.yaml has no such scenario.
        """
        return {scenario.id: scenario for scenario in self.scenarios}[name]

    @property
    def connections(self) -> tuple[str, ...]:
        """The ids of the Airflow connections with which incident workflows read databases."""
        own = (scope.connection for scope in self.scope if scope.connection)
        return tuple(dict.fromkeys([self.connection, *own]))

    def connection_to(self, database: str) -> str:
        """Return the id of the Airflow connection with which incident workflows read a database."""
        own = {scope.database: scope.connection for scope in self.scope}
        return own.get(database) or self.connection

    def scope_of(self, database: str) -> ScopeRule:
        """Return the rule that defines how a database's affected records are counted.

        Raises:
            KeyError: incident.yaml has no scope for the database.
        """
        return {scope.database: scope for scope in self.scope}[database]
