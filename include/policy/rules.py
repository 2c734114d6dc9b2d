"""Models of a pack's rules: controls, backup, calendar, roles, evidence, notifications.

Each class models a mapping in a YAML file. `python -m include.reference` generates the reference of
the keys from the docstrings. Docstrings and shipped files name the source of each number that a law
sets.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from include.frozen import StrictModel
from include.messages import Message, verbatim
from include.policy.citation import cite
from include.policy.period import Period, PositivePeriod, add_period

LANGUAGES = ("en", "zh-CN")
"""The languages that every text of a pack has to have."""

_Item = TypeVar("_Item")


def _require_languages(texts: dict[str, str]) -> dict[str, str]:
    if missing := [language for language in LANGUAGES if language not in texts]:
        raise ValueError(f"the text is missing in {' and '.join(missing)}")
    return texts


def require_items(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
    """Return a tuple, or raise ValueError if it is empty."""
    # The constraint min_length would treat a tuple with a faulty item as empty and report it twice
    if not items:
        raise ValueError("should not be empty")
    return items


def _repeat_in_all_languages(text: Any) -> Any:
    return dict.fromkeys(LANGUAGES, text) if isinstance(text, str) else text


@dataclass(frozen=True)
class Unit:
    """The unit of a number in a pack file, which the generated reference of the pack shows.

    Attributes:
        name: plural name of the unit, such as ``days``.
    """

    name: str


Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Texts = Annotated[dict[str, Text], AfterValidator(_require_languages)]
Name = Annotated[str, StringConstraints(min_length=1)]
"""The name of a table or column: any characters, spaces too."""
Sql = Annotated[str, StringConstraints(min_length=1, pattern=r"\S", max_length=10_000)]
"""SQL of the pack's author, who is trusted like the author of a migration."""
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]*\z", max_length=100)]
Clause = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]?(\.[1-9][0-9]?)*\z")]
Count = Annotated[int, Field(ge=0, le=10_000)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]


class Rule(StrictModel, populate_by_name=True):
    """Base class of all policy pack models. Instances are immutable; unknown keys are refused."""


_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LIKE_A_DAY = re.compile(r"\d{4}-\d+-\d+", re.ASCII)


def _edition(text: str) -> str:
    if _LIKE_A_DAY.fullmatch(text):
        _day(text)
    return text


class Source(Rule):
    """The law, regulation or standard that a rule comes from.

    Attributes:
        instrument: Name of the law, regulation or standard. One text is enough if the name is the
            same in both languages.
        version: Edition: a year, or the date on which the edition took effect. The number of an
            article may differ between editions.
        article: Article, section or annex in this edition.
    """

    instrument: Annotated[Texts, BeforeValidator(_repeat_in_all_languages)]
    version: Annotated[Text, AfterValidator(_edition)]
    article: Text

    @property
    def citations(self) -> dict[str, str]:
        """Return the citation in each language.

        The English citation, with the key ``en``, is for example "PIPL (2021-11-01), article 51".
        """
        return {
            language: cite(name, self.version, self.article, language)
            for language, name in self.instrument.items()
        }

    @property
    def message(self) -> Message:
        """Return the citation as a message for reports, in all languages."""
        return Message(text="{source}", values={"source": translated_message(self.citations)})


Basis = Annotated[
    Annotated[Literal["business"], Tag("business")] | Annotated[Source, Tag("source")],
    Discriminator(lambda value: "business" if isinstance(value, str) else "source"),
]
"""The source of a rule, or ``business`` for the company's own rule."""

_COMPARISONS: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TARGET = re.compile(r"(?P<sign><=|>=|=|<|>) ?(?P<figure>[0-9]+(\.[0-9]+)?)(?P<percent>%)?")


class Indicator(Rule):
    """The metric that shows whether a control works, and the target of this metric.

    Attributes:
        name: Name of a metric that the workflow measures. If a run does not measure it, the run has
            the outcome *needs attention*.
        target: Value that the metric has to have, for example ``= 0``, ``<= 26`` or ``>= 95%``.
    """

    name: Identifier
    target: Annotated[str, StringConstraints(pattern=rf"^{_TARGET.pattern}\z")]

    @property
    def is_share(self) -> bool:
        """Return whether the target is in percent, so that measured values are ratios."""
        return self.target.endswith("%")

    @property
    def figure(self) -> Decimal:
        """Return the number in the target; a ratio if the target is in percent."""
        match = _TARGET.fullmatch(self.target)
        assert match is not None
        return Decimal(match["figure"]) / (100 if match["percent"] else 1)

    def is_met_by(self, value: float) -> bool:
        """Return whether a measured value meets the target.

        Args:
            value: the measured value; a ratio if the target is in percent.
        """
        match = _TARGET.fullmatch(self.target)
        assert match is not None
        return _COMPARISONS[match["sign"]](Decimal(str(value)), self.figure)


class Control(Rule):
    """A control of the policy, and the workflow whose evidence proves the control.

    Attributes:
        id: Stable name of the control.
        clause: Number of the policy clause, in quotes.
        clause_title: Title of the clause in reports and on the compliance pages. If the clause has
            several controls, only one of them has to state the title.
        title: One sentence that states the control.
        workflow: DAG id of the workflow whose bundles are the evidence.
        cadence: Period within which the control needs a new evidence bundle.
        indicator: Metric that each run compares with a target.
        sources: Laws and standards that require the control.
        owner: Role of roles.yaml that is responsible for the control.
    """

    id: Identifier
    clause: Clause
    clause_title: Texts | None = None
    title: Texts
    workflow: Identifier
    cadence: PositivePeriod
    indicator: Indicator
    sources: Annotated[tuple[Source, ...], AfterValidator(require_items)]
    owner: Identifier | None = None

    @property
    def message(self) -> Message:
        """Return the title as a message for reports."""
        return translated_message(self.title)


def clause_message(number: str, title: Message | None) -> Message:
    """Return the number and title of a policy clause, such as "4.1 Collection of information".

    Without a title, return only the number.
    """
    if title is None:
        return verbatim(number)
    return Message(text="{number} {title}", values={"number": number, "title": title})


def translated_message(texts: dict[str, str]) -> Message:
    """Return a message with its own translations, which needs no translation catalogue.

    Braces in the texts are shown as they are.

    Args:
        texts: language, such as ``en`` -> text.
    """
    literal = {
        language: text.replace("{", "{{").replace("}", "}}") for language, text in texts.items()
    }
    return Message(text=literal["en"], translations=literal)


class Recipients(Rule):
    """The number and validity of the public keys to which backups are encrypted.

    Attributes:
        minimum: Smallest number of public keys to which a backup is encrypted, for example one of
            operations and one in offline escrow. The private key of each can decrypt the backup.
        warn_days_before_expiry: If the certificate of a public key expires within this number of
            days, the run reports a finding.
    """

    minimum: Annotated[int, Field(ge=1, le=100), Unit("keys")] = 2
    warn_days_before_expiry: Count = 30


class Keep(Rule):
    """The restore points that pruning keeps; periods without restore points do not count.

    Attributes:
        daily: Number of recent days with restore points. The newest restore point of each of these
            days is kept.
        weekly: Number of recent weeks with restore points. The newest restore point of each of
            these weeks is kept.
        monthly: Number of recent months with restore points. The newest restore point of each of
            these months is kept.
        floor: Number of newest restore points of a database that are never pruned; at most the sum
            of ``daily``, ``weekly`` and ``monthly``.
    """

    daily: Annotated[Count, Unit("days")] = 7
    weekly: Annotated[Count, Unit("weeks")] = 5
    monthly: Annotated[Count, Unit("months")] = 3
    floor: Annotated[int, Field(ge=1, le=10_000, validate_default=True)] = 3

    @field_validator("floor")
    @classmethod
    def _floor_is_reachable(cls, floor: int, info: ValidationInfo) -> int:
        # an invalid number was already reported: use the floor so that this check passes
        kept = sum(info.data.get(key, floor) for key in ("daily", "weekly", "monthly"))
        if kept < floor:
            raise ValueError(f"daily + weekly + monthly keep {kept}, below the floor of {floor}")
        return floor


class Drill(Rule):
    """How a restore drill chooses a restore point, and how it tests the restored database.

    Attributes:
        choose: With ``latest``, a drill restores the newest restore point. With ``undrilled``, it
            restores a random restore point that no earlier drill has restored successfully. If
            earlier drills have restored every restore point, it restores the newest restore point.
        newest_record_window_hours: Largest acceptable difference, in hours, between the time of the
            backup and the newest record in the restored database.
    """

    choose: Literal["latest", "undrilled"] = "latest"
    newest_record_window_hours: Positive = 26


class Targets(Rule):
    """Recovery targets of databases for which the data map states none.

    Attributes:
        rto_minutes: Recovery time objective: the longest acceptable duration of a restore, in
            minutes.
        rpo_hours: Recovery point objective: the longest acceptable age of the newest restore point,
            in hours.
    """

    rto_minutes: Positive = 240
    rpo_hours: Positive = 24


class BackupRules(Rule):
    """Encryption keys, retention and restore drills of backups.

    Attributes:
        recipients: Public keys to which backups are encrypted.
        keep: Restore points that are not pruned.
        expire_days: Age in days at which a restore point is deleted even if ``keep`` would keep it,
            so that the data of erased customers also disappears from the backups (PIPL 2021-11-01,
            articles 19 and 47). The restore point is kept if ``keep.floor``, a legal hold or a lock
            requires it.
        lock_days: Number of days for which S3 Object Lock prevents the deletion of a stored restore
            point; not more than ``expire_days``.
        drill: How restore drills choose and test a restore point.
        defaults: Recovery targets of databases for which the data map states none.
    """

    recipients: Recipients = Recipients()
    keep: Keep = Keep()
    expire_days: Annotated[int, Field(ge=35, le=90)] = 90
    lock_days: Annotated[int, Field(ge=1, le=90)] = 35
    drill: Drill = Drill()
    defaults: Targets = Targets()

    @field_validator("lock_days")
    @classmethod
    def _not_beyond_expiry(cls, lock_days: int, info: ValidationInfo) -> int:
        expiry = info.data.get("expire_days")
        if expiry is not None and lock_days > expiry:
            raise ValueError(f"the lock outlasts expire_days ({expiry})")
        return lock_days


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("is not an IANA timezone such as Asia/Shanghai") from error
    return name


def _country(code: str) -> str:
    # Imported here because every DAG file imports this module, and the library loads dateutil.
    # list_supported_countries() would import the holidays of each country, in 0.1 s.
    from holidays.registry import EntityLoader

    if code not in EntityLoader.get_country_codes(include_aliases=True):
        raise ValueError("is not a country's code that the library holidays knows, such as CN")
    return code


def _day(value: Any) -> date:
    if isinstance(value, date):
        return value
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("should be a day of the calendar: 2026-10-01")


Day = Annotated[date, PlainValidator(_day)]
"""A calendar day, written as 2026-10-01."""

Year = Annotated[int, Field(ge=2000, le=2200)]
"""A calendar year, written as 2026."""

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)


def time_of_day(text: Any) -> str:
    """Return a time of day such as ``22:00``, or raise ValueError if it is not valid."""
    if not isinstance(text, str) or not _TIME_OF_DAY.fullmatch(text):
        raise ValueError(
            "should be a time of day from 00:00 to 23:59, in the pack's timezone: 22:00, without "
            "an offset"
        )
    return text


TimeOfDay = Annotated[str, AfterValidator(time_of_day)]
"""A time of day in the pack's timezone with hours and minutes: 22:00."""


class Quiet(Rule):
    """The hours in which only urgent notifications are sent.

    Attributes:
        begins: Start of the quiet hours, in the pack's timezone.
        ends: End of the quiet hours, in the pack's timezone. If it is before ``begins``, it is on
            the next day.
    """

    begins: TimeOfDay = "21:00"
    ends: TimeOfDay = "08:00"

    def covers(self, moment: datetime) -> bool:
        """Return whether a time is in the quiet hours.

        Args:
            moment: time in the pack's timezone.
        """
        local_time = moment.strftime("%H:%M")
        if self.begins <= self.ends:
            return self.begins <= local_time < self.ends
        return local_time >= self.begins or local_time < self.ends


class Calendar(Rule):
    """Timezone, workdays and quiet hours.

    Attributes:
        timezone: IANA timezone of schedules and of times in reports.
        holidays: Country (ISO 3166 code) whose public holidays are days off. Make-up workdays that
            the country sets each year are workdays. With ``null``, only weekends are days off.
        closed: Further days off: days on which the company is closed, and public holidays that the
            installed version of the Python library ``holidays`` does not know yet.
        opened: Further workdays: days on which the company works, and make-up workdays that the
            library does not know yet.
        announced: Years whose official calendar is complete in ``opened``, ``closed`` and the
            library. If ``holidays`` is ``CN``, list a year here as soon as you have entered all of
            its days that the library does not know. Until then, the training report states that the
            calendar of the year is unknown, unless the library has make-up workdays of the year.
            For other values of ``holidays``, the key has no effect.
        quiet: Hours in which only urgent notifications are sent.
    """

    timezone: Annotated[str, AfterValidator(_timezone)] = "Asia/Shanghai"
    holidays: Annotated[str, AfterValidator(_country)] | None = "CN"
    closed: tuple[Day, ...] = ()
    opened: tuple[Day, ...] = ()
    announced: tuple[Year, ...] = ()
    quiet: Quiet = Quiet()

    @model_validator(mode="after")
    def _open_or_closed(self) -> Calendar:
        if conflicts := sorted(set(self.closed) & set(self.opened)):
            raise ValueError(f"{conflicts[0]} is both closed and opened")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """Return the timezone as a `ZoneInfo`."""
        return ZoneInfo(self.timezone)


class Role(Rule):
    """A role in the company, which is responsible for controls and receives notifications.

    Attributes:
        id: Stable name of the role, to which controls refer.
        title: Name of the role, as reports and pages show it.
        mail: Mail addresses that receive the reports and notifications of the role.
        robot: Id of the Airflow connection of a chat robot. The robot posts the notifications of
            the role in a group chat, in addition to the mail.
        accounts: User ids in Airflow of the people who have the role. Their work list shows the
            findings of the role, and they may decide about these findings.
    """

    id: Identifier
    title: Texts
    mail: tuple[Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\z")], ...] = ()
    robot: Text | None = None
    accounts: tuple[Text, ...] = ()

    @property
    def message(self) -> Message:
        """Return the title as a message for reports."""
        return translated_message(self.title)


class FindingRules(Rule):
    """Due dates of the findings of runs, and the roles that may decide about findings.

    Attributes:
        due_after_failure: Period after which a finding that made a control or a run fail has to be
            corrected.
        due_after_attention: Period after which a finding that needs attention has to be corrected.
        reassign: Roles of roles.yaml whose people may name another owner of any finding. The people
            of the owner always may.
        accept_risk: Roles of roles.yaml whose people may accept the risk of a finding.
        longest_acceptance: Longest period for which a risk may be accepted.
        longest_postponement: Longest period, from the day of an answer, to which an owner may
            postpone the due date of a finding.
    """

    due_after_failure: PositivePeriod = Period.parse("P14D")
    due_after_attention: PositivePeriod = Period.parse("P60D")
    reassign: tuple[Identifier, ...] = ("compliance", "management")
    accept_risk: tuple[Identifier, ...] = ("management",)
    longest_acceptance: PositivePeriod = Period.parse("P1Y")
    longest_postponement: PositivePeriod = Period.parse("P180D")


# Records of sharing and entrusting are kept for at least three years: Network Data Security
# Management Regulations (2025-01-01) 12. So are impact assessments: PIPL (2021-11-01) 56.
_SHORTEST_TERM = Period.parse("P3Y")
_SHORTEST_TERM_DAYS = 1096  # three years with a leap day
# Periods are compared by their number of days from this date.
_REFERENCE_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def _days(period: Period) -> int:
    """Return the number of days in a period that begins on 2026-01-01.

    Two periods are compared by this number.
    """
    return (add_period(_REFERENCE_DAY, period, ZoneInfo("UTC")) - _REFERENCE_DAY).days


def _require_legal_term(period: Period) -> Period:
    if _days(period) < _days(_SHORTEST_TERM):
        raise ValueError(
            "is shorter than three years (Network Data Security Management Regulations 12, PIPL 56)"
        )
    return period


class EvidenceRules(Rule):
    """How long evidence bundles are kept and locked.

    Attributes:
        keep: Time for which a bundle is kept after its seal. It is at least three years (Network
            Data Security Management Regulations 2025-01-01, article 12; PIPL 2021-11-01, article
            56). The default is six years: the five years for which the company keeps workpapers,
            certificates of deletion and incident records, plus one year because an incident may
            last that long. When the time is over, `enforce_retention` deletes the files, unless a
            legal hold is active.
        lock_days: Number of days for which an S3 store with Object Lock refuses to delete a bundle;
            at least three years, and not longer than ``keep``. A store in a directory cannot lock
            files.
    """

    keep: Annotated[PositivePeriod, AfterValidator(_require_legal_term)] = Period.parse("P6Y")
    lock_days: Annotated[int, Field(ge=_SHORTEST_TERM_DAYS, le=36_500)] = 1098

    @field_validator("lock_days")
    @classmethod
    def _not_beyond_the_term(cls, lock_days: int, info: ValidationInfo) -> int:
        keep = info.data.get("keep")
        if keep is not None and lock_days > max(_days(keep), _SHORTEST_TERM_DAYS):
            raise ValueError(f"the lock outlasts keep ({keep})")
        return lock_days


Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?\z")]


class InDoubt(Rule):
    """What happens with a message if ParcelSeal cannot know whether the server accepted it.

    An example is a process that is killed, or loses its connection, after the server accepted a
    message and before ParcelSeal recorded this.

    Attributes:
        mail: For mail: ``resend`` sends the mail again with the same Message-ID, so it arrives at
            least once. ``report`` names the mail in the report and does not send it again, so it
            arrives at most once.
        robot: For group chats: ``resend`` or ``report``, as for ``mail``. A group chat cannot
            recognise a second copy.
    """

    mail: Literal["resend", "report"] = "resend"
    robot: Literal["resend", "report"] = "report"


class NotificationRules(Rule):
    """Language, timing and retries of notifications.

    Attributes:
        languages: Languages of every message, in this order. The subject is in the first language
            only.
        workdays_only: Whether notifications that are not urgent are sent on workdays only.
        retry_after: Pauses between the attempts to send a message that the server defers. The first
            pause follows the first attempt, the second pause follows the second attempt, and so on.
            The last pause follows all further attempts. After a pause, the next run of a workflow
            sends the message.
        give_up_after: Time after which a message is reported as undeliverable. It counts from the
            first time that the server deferred the message.
        in_doubt: What happens with a message if ParcelSeal cannot know whether it arrived.
        domains: Domains, with their subdomains, to which mail to staff and partners may be sent. An
            empty list allows all domains. Notices to customers are not limited.
        may_opt_out: Types of notifications that a recipient may refuse.
    """

    languages: Annotated[tuple[Literal["zh-CN", "en"], ...], AfterValidator(require_items)] = (
        "zh-CN",
        "en",
    )
    workdays_only: bool = True
    retry_after: Annotated[tuple[PositivePeriod, ...], AfterValidator(require_items)] = (
        Period.parse("PT1M"),
        Period.parse("PT5M"),
        Period.parse("PT15M"),
        Period.parse("PT1H"),
    )
    give_up_after: PositivePeriod = Period.parse("P3D")
    in_doubt: InDoubt = InDoubt()
    domains: tuple[Domain, ...] = ()
    may_opt_out: tuple[Literal["training.department"], ...] = ()


class TaskOperations(Rule):
    """The Airflow pool, priority and queue of a task.

    Attributes:
        pool: Airflow pool in which the task takes a slot.
        priority: Airflow's ``priority_weight`` of the task. Airflow adds the weights of all later
            tasks of the run to this weight.
        queue: Queue of the workers that run the task. It overrides the queue of the workflow.
    """

    pool: Annotated[Text | None, Field(examples=["dumps"])] = None
    priority: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, Field(examples=[10])] = (
        None
    )
    queue: Annotated[Text | None, Field(examples=["backup"])] = None


class WorkflowOperations(TaskOperations):
    """How Airflow runs a workflow and its tasks.

    Attributes:
        pool: Airflow pool in which each task of the workflow takes a slot.
        priority: Airflow's ``priority_weight`` of each task of the workflow. Airflow adds the
            weights of all later tasks of the run to this weight.
        queue: Queue of the workers that run the tasks of the workflow. The task `send`, and tasks
            for which the code declares a queue, do not use it.
        time_limit: Longest time between the queueing of a run and its end. If a run takes longer,
            the workflow's owner is notified once.
        tasks: Settings of single tasks, which override those of the workflow. The name of a task is
            the name in Airflow's graph, without the task group.
    """

    time_limit: Annotated[PositivePeriod | None, Field(examples=["PT4H"])] = None
    tasks: Mapping[Identifier, TaskOperations] = {}


class Operations(Rule):
    """How Airflow runs the workflows of this installation.

    Attributes:
        workflows: Settings by DAG id. A workflow without settings runs as it is declared in the
            code.
    """

    workflows: Mapping[Identifier, WorkflowOperations] = {}

    def of(self, workflow: str) -> WorkflowOperations:
        """Return the settings of a workflow; if the pack has none for it, return the defaults.

        Args:
            workflow: DAG id of the workflow.
        """
        return self.workflows.get(workflow) or WorkflowOperations()
