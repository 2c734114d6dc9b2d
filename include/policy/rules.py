"""The rules of a pack: controls, backup, calendar, roles, evidence, notices.

Each class is one mapping of a YAML file; docs/policy-pack.md explains every key for its writers.
Figures of law carry their source there and in the shipped files.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
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
from include.messages import Message
from include.policy.period import Period, PositivePeriod, later

LANGUAGES = ("en", "zh-CN")
"""The languages in which every text of a pack has to be there."""


_Item = TypeVar("_Item")


def _both_languages(texts: dict[str, str]) -> dict[str, str]:
    if absent := [one for one in LANGUAGES if one not in texts]:
        raise ValueError(f"the text is missing in {' and '.join(absent)}")
    return texts


def some(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
    """Validator: at least one item."""
    # unlike min_length not counted when an item is faulty: that is one fault, not two
    if not items:
        raise ValueError("should not be empty")
    return items


def _same_in_all(text: Any) -> Any:
    return dict.fromkeys(LANGUAGES, text) if isinstance(text, str) else text


Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Texts = Annotated[dict[str, Text], AfterValidator(_both_languages)]
Name = Annotated[str, StringConstraints(min_length=1)]
"""The name of a table or column: any characters, spaces too."""
Sql = Annotated[str, StringConstraints(min_length=1, pattern=r"\S", max_length=10_000)]
"""SQL of the pack's author, who is trusted as the author of a migration is."""
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]*\z", max_length=100)]
Clause = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]?(\.[1-9][0-9]?)*\z")]
Count = Annotated[int, Field(ge=0, le=10_000)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]


class Rule(StrictModel, populate_by_name=True):
    """Base of everything a pack states: frozen, and no key goes unnoticed."""


_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LIKE_A_DAY = re.compile(r"\d{4}-\d+-\d+", re.ASCII)


def _edition(text: str) -> str:
    if _LIKE_A_DAY.fullmatch(text):
        _day(text)
    return text


class Source(Rule):
    """Where a rule comes from.

    Attributes:
        instrument: name of the law, regulation or standard, by language; one text when it is
            the same in all.
        version: edition, as year or date of effect; articles are renumbered between editions.
        article: article, section or annex in that edition.
    """

    instrument: Annotated[Texts, BeforeValidator(_same_in_all)]
    version: Annotated[Text, AfterValidator(_edition)]
    article: Text

    @property
    def message(self) -> Message:
        """The source as one text, "Personal Information Protection Law (2021-11-01) 51(3)"."""
        cited = {
            language: f"{name} ({self.version}) {self.article}"
            for language, name in self.instrument.items()
        }
        return Message(text="{source}", values={"source": in_languages(cited)})


Basis = Annotated[
    Annotated[Literal["business"], Tag("business")] | Annotated[Source, Tag("source")],
    Discriminator(lambda value: "business" if isinstance(value, str) else "source"),
]
"""The source of what is asked, or the company's own rule."""

_COMPARISONS: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TARGET = re.compile(r"(?P<sign><=|>=|=|<|>) ?(?P<figure>[0-9]+(\.[0-9]+)?)(?P<percent>%)?")


class Indicator(Rule):
    """A figure that says whether a control works.

    Attributes:
        name: name of the metric, ``restore_points_missing``.
        target: what it should be: ``= 0``, ``<= 26``, ``>= 95%``.
    """

    name: Identifier
    target: Annotated[str, StringConstraints(pattern=rf"^{_TARGET.pattern}\z")]

    def met(self, value: float) -> bool:
        """Say whether a figure is as it should be; a target in percent is held against a ratio."""
        found = _TARGET.fullmatch(self.target)
        assert found is not None
        figure = Decimal(found["figure"]) / (100 if found["percent"] else 1)
        return _COMPARISONS[found["sign"]](Decimal(str(value)), figure)


class Control(Rule):
    """One control: what the policy asks, and the workflow that shows it.

    Attributes:
        id: stable name, ``backup.offsite``.
        clause: clause of the policy, ``4.2``.
        title: one sentence, by language.
        workflow: dag_id of the workflow whose bundles are the evidence.
        cadence: at least one bundle in each such period.
        indicator: what is measured, with its target.
        sources: law and standards behind it.
        owner: role that answers for it, of roles.yaml; None when nobody is named.
    """

    id: Identifier
    clause: Clause
    title: Texts
    workflow: Identifier
    cadence: PositivePeriod
    indicator: Indicator
    sources: Annotated[tuple[Source, ...], AfterValidator(some)]
    owner: Identifier | None = None

    @property
    def message(self) -> Message:
        """The title for a report."""
        return in_languages(self.title)


def in_languages(texts: dict[str, str]) -> Message:
    """A message that carries its own translations."""
    return Message(text=texts["en"], translations=texts)


class Recipients(Rule):
    """Public keys to which every backup is encrypted.

    Attributes:
        minimum: how many there must be.
        warn_days_before_expiry: days before a key's end from which it is a finding.
    """

    minimum: Annotated[int, Field(ge=1, le=100)] = 2
    warn_days_before_expiry: Count = 30


class Keep(Rule):
    """Which restore points pruning keeps: the newest of each of the last days, weeks, months.

    Attributes:
        daily: days.
        weekly: weeks.
        monthly: months.
        floor: restore points per database that are never pruned, however old.
    """

    daily: Count = 7
    weekly: Count = 5
    monthly: Count = 3
    floor: Annotated[int, Field(ge=1, le=10_000, validate_default=True)] = 3

    @field_validator("floor")
    @classmethod
    def _reachable(cls, floor: int, info: ValidationInfo) -> int:
        # a figure that is wrong itself has been reported already: let it pass here
        kept = sum(info.data.get(key, floor) for key in ("daily", "weekly", "monthly"))
        if kept < floor:
            raise ValueError(f"daily + weekly + monthly keep {kept}, below the floor of {floor}")
        return floor


class Drill(Rule):
    """How restore drills are done.

    Attributes:
        choose: ``latest`` restore point, or a random one ``undrilled`` so far.
        newest_record_window_hours: the newest record of a restored database may be this many
            hours older than its snapshot.
    """

    choose: Literal["latest", "undrilled"] = "latest"
    newest_record_window_hours: Positive = 26


class Targets(Rule):
    """Recovery targets of a database that names none.

    Attributes:
        rto_minutes: minutes in which it has to be restored.
        rpo_hours: hours of changes that may be lost.
    """

    rto_minutes: Positive = 240
    rpo_hours: Positive = 24


class BackupRules(Rule):
    """backup.yaml.

    Attributes:
        recipients: keys that can open backups.
        keep: what pruning keeps.
        expire_days: age in days at which a restore point goes even if ``keep`` would keep it;
            35 to 90, so that deleted people do not live on in backups (the floor, a legal hold
            and a lock come first).
        lock_days: days for which a stored object cannot be deleted (Object Lock).
        drill: how drills are done.
        defaults: recovery targets.
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
    # every DAG file imports this module, and the library loads dateutil; its
    # list_supported_countries() would import the holidays of each country, in 0.1 s
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

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)


def time_of_day(text: Any) -> str:
    """Validator: a time of day by hours and minutes, without an offset."""
    if not isinstance(text, str) or not _TIME_OF_DAY.fullmatch(text):
        raise ValueError(
            "should be a time of day from 00:00 to 23:59, in the pack's timezone: 22:00, without "
            "an offset"
        )
    return text


TimeOfDay = Annotated[str, AfterValidator(time_of_day)]
"""A time of day in the pack's timezone, by hours and minutes: 22:00."""


class Quiet(Rule):
    """Hours in which nobody is told what can wait.

    Attributes:
        begins: time of day in the pack's timezone, ``21:00``.
        ends: likewise; before ``begins`` it is that of the next day.
    """

    begins: TimeOfDay = "21:00"
    ends: TimeOfDay = "08:00"

    def covers(self, moment: datetime) -> bool:
        """Whether a local moment lies in them."""
        at = moment.strftime("%H:%M")
        if self.begins <= self.ends:
            return self.begins <= at < self.ends
        return at >= self.begins or at < self.ends


class Calendar(Rule):
    """calendar.yaml.

    Attributes:
        timezone: IANA name; schedules and report times are in it.
        holidays: country whose public holidays are no workdays, by ISO 3166 code; None: none are.
        closed: further days off, of the company.
        opened: further workdays, of the company; or make-up days that are not known yet.
        announced: years whose make-up days stand in ``opened`` and ``closed``, since ParcelSeal
            does not know them yet.
        quiet: hours in which messages that can wait are not sent.
    """

    timezone: Annotated[str, AfterValidator(_timezone)] = "Asia/Shanghai"
    holidays: Annotated[str, AfterValidator(_country)] | None = "CN"
    closed: tuple[Day, ...] = ()
    opened: tuple[Day, ...] = ()
    announced: tuple[Annotated[int, Field(ge=2000, le=2200)], ...] = ()
    quiet: Quiet = Quiet()

    @model_validator(mode="after")
    def _open_or_closed(self) -> Calendar:
        if both := sorted(set(self.closed) & set(self.opened)):
            raise ValueError(f"{both[0]} is both closed and opened")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The timezone itself."""
        return ZoneInfo(self.timezone)


class Role(Rule):
    """One role of roles.yaml.

    Attributes:
        id: ``information_management``.
        title: its name, by language.
        mail: addresses that receive its reports and notices.
        robot: id of the Airflow connection of a group chat's robot that is told too.
    """

    id: Identifier
    title: Texts
    mail: tuple[Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\z")], ...] = ()
    robot: Text | None = None


# Records of sharing and entrusting stay for at least three years: Network Data Security Management
# Regulations (2025-01-01) 12. So do those of impact assessments: PIPL (2021-11-01) 56.
_LEAST = Period.parse("P3Y")
_LEAST_DAYS = 1096  # three years with a leap day
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)  # from which two periods are compared


def _days(period: Period) -> int:
    """Return the days of a period; of years rather one too few, as a leap day comes late."""
    return (later(_SOME_DAY, period, ZoneInfo("UTC")) - _SOME_DAY).days


def _long_enough(period: Period) -> Period:
    if _days(period) < _days(_LEAST):
        raise ValueError(
            "is shorter than three years (Network Data Security Management Regulations 12, PIPL 56)"
        )
    return period


class EvidenceRules(Rule):
    """evidence.yaml.

    Attributes:
        keep: how long a bundle is kept after its seal, at least three years. After it, and unless
            a legal hold is active, `enforce_retention` removes the bundle's files.
        lock_days: days for which a store that locks objects (S3 with Object Lock) refuses to delete
            a bundle, at least three years and not beyond `keep`.
    """

    keep: Annotated[PositivePeriod, AfterValidator(_long_enough)] = Period.parse("P6Y")
    lock_days: Annotated[int, Field(ge=_LEAST_DAYS, le=36_500)] = 1098

    @field_validator("lock_days")
    @classmethod
    def _not_beyond_the_term(cls, lock_days: int, info: ValidationInfo) -> int:
        keep = info.data.get("keep")
        if keep is not None and lock_days > max(_days(keep), _LEAST_DAYS):
            raise ValueError(f"the lock outlasts keep ({keep})")
        return lock_days


Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?\z")]


class InDoubt(Rule):
    """What is done with a message of which nobody knows whether it went out.

    A process may be killed, or a connection cut, after the server took a message and before that
    was recorded. ``resend`` sends it again (at least once; mail has the same Message-ID, by which
    a second copy is known), ``report`` does not and names it in the report (at most once).

    Attributes:
        mail: of the channel mail.
        robot: of the channel robot, whose messages have nothing that tells a second copy.
    """

    mail: Literal["resend", "report"] = "resend"
    robot: Literal["resend", "report"] = "report"


class NoticeRules(Rule):
    """notices.yaml.

    Attributes:
        languages: of every message, in this order.
        workdays_only: whether what can wait is told on workdays only.
        retry_after: pauses before a deferred message is tried again; the last one repeats.
        give_up_after: time after its first deferral at which a notice is reported instead.
        in_doubt: what is done when nobody knows whether a message went out.
        domains: mail goes to addresses of these domains and their subdomains only; empty means any.
            Letters to customers, whose addresses are looked up, are not held against it.
        may_opt_out: kinds of notices that a recipient may refuse; all others are duties.
    """

    languages: Annotated[tuple[Literal["zh-CN", "en"], ...], AfterValidator(some)] = ("zh-CN", "en")
    workdays_only: bool = True
    retry_after: Annotated[tuple[PositivePeriod, ...], AfterValidator(some)] = (
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
    """Where tasks run, and how urgent they are; None for what was declared.

    Attributes:
        pool: of Airflow, whose slots they take.
        priority: Airflow's ``priority_weight``; a higher one starts first when slots are rare.
        queue: of the workers that do them.
    """

    pool: Text | None = None
    priority: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    queue: Text | None = None


class WorkflowOperations(TaskOperations):
    """How a workflow runs. Its queue is for tasks that have no queue of their own.

    Attributes:
        time_limit: from the queueing of a run until it should have ended; None for no
            limit.
        tasks: by name of the task; before what the workflow has.
    """

    time_limit: PositivePeriod | None = None
    tasks: Mapping[Identifier, TaskOperations] = {}


class Operations(Rule):
    """operations.yaml.

    Attributes:
        workflows: by id of the workflow; one that is left out runs as it was declared.
    """

    workflows: Mapping[Identifier, WorkflowOperations] = {}

    def of(self, workflow: str) -> WorkflowOperations:
        """Return how a workflow runs."""
        return self.workflows.get(workflow) or WorkflowOperations()
