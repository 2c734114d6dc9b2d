"""partners.yaml: the third parties that receive customer information, and how reviews are scored.

The author of the pack is trusted with the SQL of the register, as the author of a migration is;
docs/partners.md explains every key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from include.messages import Message
from include.policy.period import Period, PositivePeriod
from include.policy.rates import ExactRate, ceiling
from include.policy.rules import (
    Basis,
    Identifier,
    Name,
    Rule,
    Sql,
    Text,
    Texts,
    in_languages,
    some,
)
from include.policy.section import Loc, PackNames, RuleSection, SectionRules, twice

CLAUSE_REVIEW, CLAUSE_BOUND = "4.3", "4.4"
STEP_CHECK = "check"

REMINDER = "partners.reminder"  # kinds of notices: to the company, to the partner itself
CONTACT = "partners.contact"

UNBOUND = "partners_live_unbound"  # figures of the controls
UNREVIEWED = "partners_live_unreviewed"


Days = Annotated[int, Field(ge=1, le=730)]
Weight = Annotated[int, Field(ge=1, le=1_000)]


def _in_days(period: Period) -> Period:
    if period.seconds:
        raise ValueError("should be in days, months or years: P12M")
    return period


class Register(Rule):
    """Where the partners are.

    Attributes:
        database: database of the data map that the query reads.
        sql: SELECT with the columns of `include.partners.register.COLUMNS`.
    """

    database: Name
    sql: Sql


class Tier(Rule):
    """Partners that are treated alike.

    Attributes:
        tier: its number in the register.
        title: its name, by language.
        review_every: period from a passed review to the day on which the next one is due.
        pass_mark: share of the answered weight from which a questionnaire passes, as exact percent.
    """

    tier: Annotated[int, Field(ge=0, le=99)]
    title: Texts
    review_every: Annotated[PositivePeriod, AfterValidator(_in_days)]
    pass_mark: ExactRate

    @property
    def message(self) -> Message:
        """The title for a report."""
        return in_languages(self.title)


class Question(Rule):
    """One question of the questionnaire; a partner answers yes or no.

    Attributes:
        id: stable name, ``return_or_delete``.
        text: the question, by language; yes is what should be.
        weight: how much it counts.
        critical: whether a no fails the review whatever the score.
        may_not_apply: whether it may be answered with "not applicable"; it then counts nothing.
        basis: the source of what is asked, or ``business`` for the company's own rule.
    """

    id: Identifier
    text: Texts
    weight: Weight = 1
    critical: bool = False
    may_not_apply: bool = False
    basis: Basis

    @property
    def message(self) -> Message:
        """The question for a questionnaire."""
        return in_languages(self.text)


class PartnerRules(SectionRules):
    """partners.yaml.

    Attributes:
        connection: id of the Airflow connection that reads the register; the database's own where
            it is not configured.
        register: where the partners are; ``register`` in the file.
        owner: role of roles.yaml that answers for partners and is reminded.
        tell_partners: whether a partner's own contact is reminded too.
        ladder: days before the end of an agreement, and before the day of the review, by which
            people are reminded at the latest.
        lapsed_every: days between reminders from the lapse on, for as long as it lasts.
        tiers: the tiers of partners.
        return_within: period in which a questionnaire should be back, and in which a returned one
            should be decided on.
        sub_processors: whether partners name those who process customer information for them.
        questionnaire: what they are asked.
    """

    connection: Text = "partners_db"
    source: Annotated[Register, Field(alias="register")]
    owner: Identifier
    tell_partners: bool = False
    ladder: Annotated[tuple[Days, ...], AfterValidator(some)] = (90, 30, 7)
    lapsed_every: Days = 7
    tiers: Annotated[tuple[Tier, ...], AfterValidator(some)]
    return_within: Annotated[PositivePeriod, AfterValidator(_in_days)] = Period.parse("P30D")
    sub_processors: bool = True
    questionnaire: Annotated[tuple[Question, ...], AfterValidator(some), Field(max_length=200)]

    @model_validator(mode="after")
    def _falls(self) -> PartnerRules:
        if list(self.ladder) != sorted(set(self.ladder), reverse=True):
            raise ValueError("ladder should fall: [90, 30, 7]")
        return self

    def tier(self, number: int | None) -> Tier | None:
        """The tier of that number; None when the pack has none."""
        return next((tier for tier in self.tiers if tier.tier == number), None)


def check_rules(rules: PartnerRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield what partners.yaml names and the rest of the pack does not have."""
    if rules.source.database not in pack.inventory:
        yield ("register", "database"), f"the pack maps no database {rules.source.database!r}"
    if rules.owner not in pack.roles:
        yield ("owner",), f"roles.yaml has no role {rules.owner!r}"
    yield from twice("tiers", "tier", [str(tier.tier) for tier in rules.tiers])
    yield from twice("questionnaire", "id", [question.id for question in rules.questionnaire])
    for number, question in enumerate(rules.questionnaire):
        if question.critical and question.may_not_apply:
            message = "a critical question always applies"
            yield ("questionnaire", number, "may_not_apply"), message


PARTNERS = RuleSection("partners.yaml", PartnerRules, check_rules, page="partners.md")


class Answer(StrEnum):
    """A partner's answer; yes is the expected one."""

    YES = "yes"
    NO = "no"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True)
class Asked:
    """A question as it was put to a partner.

    Attributes:
        id: stable name.
        text: the question.
        basis: where it comes from.
        weight: how much it counts.
        critical: whether a no fails the review whatever the score.
        may_not_apply: whether it may be answered with "not applicable".
    """

    id: str
    text: Message
    basis: Message
    weight: int
    critical: bool
    may_not_apply: bool

    @classmethod
    def of(cls, one: Question, own: Message) -> Asked:
        """A question of the pack; ``own`` is said of the company's own rules."""
        return cls(
            id=one.id,
            text=one.message,
            basis=own if one.basis == "business" else one.basis.message,
            weight=one.weight,
            critical=one.critical,
            may_not_apply=one.may_not_apply,
        )


@dataclass(frozen=True)
class Score:
    """The score of answers.

    Attributes:
        share: of the weight of what applies, answered with yes; None where nothing applies.
        pass_mark: share from which it passes.
        failed: ids of critical questions that were not answered with yes.
    """

    share: Fraction | None
    pass_mark: Fraction
    failed: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether the mark is reached and no critical question failed; nothing shown passes not."""
        return self.share is not None and self.share >= self.pass_mark and not self.failed


def score(asked: Sequence[Asked], answers: Mapping[str, Answer], pass_mark: Fraction) -> Score:
    """Weigh the answers to a questionnaire; what was not answered counts as no."""
    applies = [
        question for question in asked if answers.get(question.id) is not Answer.NOT_APPLICABLE
    ]
    met = [question for question in applies if answers.get(question.id) is Answer.YES]
    whole = sum(question.weight for question in applies)
    return Score(
        share=Fraction(sum(question.weight for question in met), whole) if whole else None,
        pass_mark=pass_mark,
        failed=tuple(
            question.id for question in asked if question.critical and question not in met
        ),
    )


def shown(share: Fraction) -> str:
    """A score for people, rounded down: what is short of the mark never looks like it."""
    return f"{-ceiling(-share * 100, 2):f}".rstrip("0").rstrip(".") + "%"
