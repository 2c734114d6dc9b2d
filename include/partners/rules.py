"""The content of partners.yaml: rules about partners that receive customer data.

The SQL of the partner register is executed as it is written. The author of the policy pack is
therefore trusted as the author of a database migration is. docs/reference/policy-pack/partners.md
explains every key.
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
from include.policy.rates import ExactRate, round_up
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
from include.policy.section import Loc, PackNames, RuleSection, SectionRules, find_duplicates

CLAUSE_REVIEW, CLAUSE_BOUND = "4.3", "4.4"
STEP_CHECK = "check"

REMINDER = "partners.reminder"  # kinds of notifications: to the owner, to the partner
CONTACT = "partners.contact"

UNBOUND = "partners_live_unbound"  # metrics of the controls
UNREVIEWED = "partners_live_unreviewed"


Days = Annotated[int, Field(ge=1, le=730), Unit("days")]
Weight = Annotated[int, Field(ge=1, le=1_000)]


def _in_days(period: Period) -> Period:
    if period.seconds:
        raise ValueError("should be in days, months or years: P12M")
    return period


class Register(Rule):
    """The query that reads the partner register.

    Attributes:
        database: Mapped database that the query reads.
        sql: SELECT with one row per partner and these columns: ``partner``, ``name``, ``tier``,
            ``mail``, the dates ``nda_from``, ``nda_until``, ``agreement_until`` and
            ``last_review_on``, and the boolean ``live_access``.
    """

    database: Name
    sql: Sql


class Tier(Rule):
    """A group of partners with the same review interval and pass mark.

    Attributes:
        tier: Number of the tier, as in the partner register.
        title: Name of the tier, as reports show it.
        review_every: Period from a passed review to the due date of the next review, in days,
            months or years.
        pass_mark: Smallest score with which a questionnaire passes, for example ``85%`` or ``2/3``.
            The score is the sum of the weights of the questions that were answered with *yes*,
            divided by the sum of the weights of all applicable questions.
    """

    tier: Annotated[int, Field(ge=0, le=99)]
    title: Texts
    review_every: Annotated[PositivePeriod, AfterValidator(_in_days)]
    pass_mark: ExactRate

    @property
    def message(self) -> Message:
        """Return the name of the tier as a translatable message for reports."""
        return translated_message(self.title)


class Question(Rule):
    """A question of the questionnaire that a partner answers.

    Attributes:
        id: Stable name of the question.
        text: The question. *Yes* is the expected answer.
        weight: Weight of the question in the score.
        critical: Whether the answer *no* fails the review, even with a high score.
        may_not_apply: Whether the partner may answer *not applicable*. A question with this answer
            does not count in the score. A critical question always applies.
        basis: Source of the question: a law or standard, or ``business`` for a rule of the company.
    """

    id: Identifier
    text: Texts
    weight: Weight = 1
    critical: bool = False
    may_not_apply: bool = False
    basis: Basis

    @property
    def message(self) -> Message:
        """Return the text of the question as a translatable message for questionnaires."""
        return translated_message(self.text)


class PartnerRules(SectionRules):
    """Partners that receive customer data, and how their reviews are scored.

    Attributes:
        connection: Id of the Airflow connection that reads the partner register. If this connection
            does not exist, the connection that the data map names for the database is used.
        source: Query that reads the partner register.
        owner: Role of roles.yaml that is responsible for partners and receives reminders.
        tell_partners: Whether the partner's contact also receives the reminders about the partner.
        ladder: Numbers of days before an agreement ends or a review is due, in falling order. For
            each number, a reminder is sent on that day or, if reminders cannot be sent on that day,
            earlier.
        lapsed_every: Number of days between two reminders after the due date, until the obligation
            is met.
        tiers: Groups of partners with the same review interval and pass mark.
        return_within: Time within which a partner should return a questionnaire, and within which a
            decision on a returned questionnaire should be made.
        sub_processors: Whether the questionnaire asks which sub-processors of customer data the
            partner has.
        questionnaire: Questions to partners.
    """

    connection: Text = "partners_db"
    source: Annotated[Register, Field(alias="register")]
    owner: Identifier
    tell_partners: bool = False
    ladder: Annotated[tuple[Days, ...], AfterValidator(require_items)] = (90, 30, 7)
    lapsed_every: Days = 7
    tiers: Annotated[tuple[Tier, ...], AfterValidator(require_items)]
    return_within: Annotated[PositivePeriod, AfterValidator(_in_days)] = Period.parse("P30D")
    sub_processors: bool = True
    questionnaire: Annotated[
        tuple[Question, ...], AfterValidator(require_items), Field(max_length=200)
    ]

    @model_validator(mode="after")
    def _falls(self) -> PartnerRules:
        if list(self.ladder) != sorted(set(self.ladder), reverse=True):
            raise ValueError("ladder should fall: [90, 30, 7]")
        return self

    def tier(self, number: int | None) -> Tier | None:
        """Return the tier with the given number, or None if the policy pack does not have it."""
        return next((tier for tier in self.tiers if tier.tier == number), None)


def check_rules(rules: PartnerRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield the faults of partners.yaml: unknown references, duplicate names and contradictions.

    Yields:
        The path of the faulty value in partners.yaml, and the error message.
    """
    if rules.source.database not in pack.inventory:
        yield ("register", "database"), f"the pack maps no database {rules.source.database!r}"
    if rules.owner not in pack.roles:
        yield ("owner",), f"roles.yaml has no role {rules.owner!r}"
    yield from find_duplicates("tiers", "tier", [str(tier.tier) for tier in rules.tiers])
    yield from find_duplicates(
        "questionnaire", "id", [question.id for question in rules.questionnaire]
    )
    for number, question in enumerate(rules.questionnaire):
        if question.critical and question.may_not_apply:
            message = "a critical question always applies"
            yield ("questionnaire", number, "may_not_apply"), message


PARTNERS = RuleSection("partners.yaml", PartnerRules, check_rules, page="explanation/partners.md")


class Answer(StrEnum):
    """An answer to a question of the questionnaire. The expected answer is *yes*."""

    YES = "yes"
    NO = "no"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True)
class IssuedQuestion:
    """A question as it was issued to a partner.

    Attributes:
        id: stable name of the question.
        text: text of the question.
        basis: law, standard or rule that requires the question.
        weight: weight of the question in the score.
        critical: whether the answer *no* fails the review, even with a high score.
        may_not_apply: whether the answer "not applicable" is allowed.
    """

    id: str
    text: Message
    basis: Message
    weight: int
    critical: bool
    may_not_apply: bool

    @classmethod
    def from_rules(cls, question: Question, own_rule: Message) -> IssuedQuestion:
        """Convert a question of partners.yaml to a question of an issued questionnaire.

        Args:
            question: question of partners.yaml.
            own_rule: text that names the company's own rule as the source of the question, for a
                question that no law or standard requires.
        """
        return cls(
            id=question.id,
            text=question.message,
            basis=own_rule if question.basis == "business" else question.basis.message,
            weight=question.weight,
            critical=question.critical,
            may_not_apply=question.may_not_apply,
        )


@dataclass(frozen=True)
class Score:
    """The score of a partner's answers.

    Attributes:
        share: sum of the weights of the questions that were answered with *yes*, divided by the sum
            of the weights of all applicable questions; None if no question applies.
        pass_mark: smallest value of ``share`` that is sufficient.
        failed: ids of critical questions that were not answered with *yes*.
    """

    share: Fraction | None
    pass_mark: Fraction
    failed: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Return whether the answers are sufficient for the security review to pass.

        This is the case if ``share`` reaches the pass mark and `failed` is empty.
        """
        return self.share is not None and self.share >= self.pass_mark and not self.failed


def compute_score(
    questions: Sequence[IssuedQuestion], answers: Mapping[str, Answer], pass_mark: Fraction
) -> Score:
    """Compute the score of a questionnaire. A missing answer counts as *no*.

    Args:
        questions: questions of the questionnaire.
        answers: answers by id of the question.
        pass_mark: smallest score with which the answers pass, from 0 to 1.
    """
    applicable = [
        question for question in questions if answers.get(question.id) is not Answer.NOT_APPLICABLE
    ]
    met = [question for question in applicable if answers.get(question.id) is Answer.YES]
    total_weight = sum(question.weight for question in applicable)
    return Score(
        share=Fraction(sum(question.weight for question in met), total_weight)
        if total_weight
        else None,
        pass_mark=pass_mark,
        failed=tuple(
            question.id for question in questions if question.critical and question not in met
        ),
    )


def format_score(share: Fraction) -> str:
    """Format a score as percent, rounded down to two decimals.

    A score below the pass mark therefore never looks as if it reached the pass mark.
    """
    return f"{-round_up(-share * 100, 2):f}".rstrip("0").rstrip(".") + "%"
