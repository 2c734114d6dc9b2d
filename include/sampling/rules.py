"""audit.yaml: audited populations, tolerable rates and confidence, and the auditors.

The SQL of populations is not restricted: the author of the policy pack is trusted with it, like the
author of a database migration. docs/reference/policy-pack/audit.md explains every key.

This module also defines the policy clause of audits, the kind of their findings, and the names of
their bundles and files.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints, model_validator

from include.messages import Message
from include.policy.mapping import StaffGroup, StaffTable, staff_faults
from include.policy.period import Period, PositivePeriod
from include.policy.rates import ExactRate
from include.policy.rules import (
    Basis,
    Identifier,
    Name,
    Rule,
    Sql,
    Text,
    Texts,
    require_items,
    translated_message,
)
from include.policy.section import Loc, PackNames, RuleSection, SectionRules, find_duplicates
from include.services.errors import UsageError

CLAUSE = "6.1"
FINDINGS = "audit"  # their kind in the register
NOTIFICATION_KIND = "audit.finding"  # kind of the notifications to their owners
COMMITMENT_WORKFLOW = "sample_commitment"  # of the bundle that is sealed before the seed is known
COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE = "commitment.json", "seed.json", "workpapers.xlsx"


def stage_file(part: str) -> str:
    """Return the name of the file in an evidence bundle that holds workpapers of stage 2 or later.

    Args:
        part: name of the set of workpapers, such as ``2026Q3-2-0f3a9c``.
    """
    return f"workpapers-{part}.xlsx"


def verdict_file(part: str) -> str:
    """Return the name of the file in an evidence bundle that holds the verdicts on workpapers.

    Args:
        part: name of the set of workpapers, such as ``2026Q3-1-0f3a9c``.
    """
    return f"verdicts-{part}.json"


def answers_file(part: str) -> str:
    """Return the name of the file in an evidence bundle that holds the auditors' answers.

    Args:
        part: name of the set of workpapers that was answered, such as ``2026Q3-1-0f3a9c``.
    """
    return f"answers-{part}.json"


def frame_file(population: str) -> str:
    """Return the name of the file in an evidence bundle that holds the frame of a population."""
    return f"frames/{population}.tsv"


def sample_file(population: str) -> str:
    """Return the name of the file in an evidence bundle that holds the sample of a population."""
    return f"samples/{population}.json"


SEED_RESPONSE = Period.parse("P14D")


def _inside(rate: Fraction) -> Fraction:
    if not 0 < rate < 1:
        raise ValueError("should lie between 0 and 1")
    return rate


def _confident(rate: Fraction) -> Fraction:
    if not Fraction(1, 2) <= rate < 1:
        raise ValueError("should be at least 50% and below 100%")
    return rate


class Attribute(Rule):
    """A question about every sample item.

    Attributes:
        id: Stable name of the question.
        question: Question that the auditor answers with yes or no; *no* is a deviation.
        basis: Source of the question: a law or standard, or ``business`` for the company's own
            rule.
    """

    id: Identifier
    question: Texts
    basis: Basis

    @property
    def message(self) -> Message:
        """The question for workpapers, as a message in all languages of reports."""
        return translated_message(self.question)


class Population(Rule):
    """A population that auditors test with samples.

    Attributes:
        id: Stable name of the population: letters, digits and ``_``.
        title: Name of the population, as reports show it.
        owner: Role of roles.yaml that is responsible for the audit findings.
        database: Database of the data map that the query reads.
        sql: SELECT that returns the items of the population. It has a column ``id`` (unique, not
            null, no customer's value). If ``strata`` is set, it also has a column ``stratum``. It
            may join ``period (starts, ends)``, which has the first moment of the audited quarter
            and the first moment after the quarter, in the policy pack's timezone.
        strata: Name of the groups (strata) that the column ``stratum`` distinguishes, such as
            departments. Each stratum contributes at least its share of the sample.
        tolerable: Tolerable rate. A population with this or a higher deviation rate is not
            accepted. Write the rate with a percent sign, for example ``5%``, or in quotes, because
            YAML reads a bare 0.05 as another number.
        expected: Expected deviation rate, below ``tolerable``. It decides how many deviations are
            accepted. The closer it is to ``tolerable``, the larger the sample.
        confidence: Confidence of the sample: one minus the risk that a population with the
            tolerable rate is accepted; at least 50%.
        plan: ``single`` draws one sample. ``staged`` draws a second sample of the same size if the
            first has exactly one deviation. ``discovery`` searches for a single deviation.
            ``staged`` and ``discovery`` require an expected rate of 0.
        attributes: Questions about every sample item.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\z", max_length=25)]
    title: Texts
    owner: Identifier
    database: Name
    sql: Sql
    strata: Texts | None = None
    tolerable: Annotated[ExactRate, AfterValidator(_inside)]
    expected: ExactRate = Fraction(0)
    confidence: Annotated[ExactRate, AfterValidator(_confident)] = Fraction(95, 100)
    plan: Literal["single", "staged", "discovery"] = "single"
    attributes: Annotated[tuple[Attribute, ...], AfterValidator(require_items)]

    @property
    def message(self) -> Message:
        """The title of the population, as a message in all languages of reports."""
        return translated_message(self.title)

    @model_validator(mode="after")
    def _plan_fits(self) -> Population:
        if self.expected >= self.tolerable:
            raise ValueError("expected should be below tolerable: no sample could accept it")
        if self.plan != "single" and self.expected:
            raise ValueError(f"the plan {self.plan} expects no deviation: leave out expected")
        names = [attribute.id for attribute in self.attributes]
        if len(set(names)) < len(names):
            raise ValueError("two attributes have the same id")
        return self


class Seed(Rule):
    """The public source of random seeds.

    Attributes:
        source: Public value that will be the random seed, for example the first closing value of an
            index after the commitment, or dice thrown before witnesses. State it so exactly that
            nobody can choose the value.
        response: Time for which a run waits for an auditor to enter the seed.
    """

    source: Texts
    response: PositivePeriod = SEED_RESPONSE

    @property
    def message(self) -> Message:
        """The public source of random seeds, as a message in all languages of reports."""
        return translated_message(self.source)


def _has_members(group: StaffGroup) -> StaffGroup:
    if not group.accounts and group.where is None:
        raise ValueError("should name an auditor: otherwise no seed could be entered")
    return group


class AuditRules(SectionRules):
    """Populations that auditors test with samples, and the auditors.

    Attributes:
        connection: Id of the Airflow connection with which populations and the staff table are
            read. If this connection does not exist, the connection that the data map names is used.
        staff: Table of the staff. It is required if ``auditors`` has a condition, which selects
            people from this table.
        auditors: People who enter random seeds and are responsible for the audit.
        seed: Public source of random seeds.
        return_within: Time after the draw within which the auditors should hand in the workpapers.
        mend_within: Time after the conclusion within which a deviation should be corrected and
            tested again.
        populations: Populations that auditors test with samples.
    """

    connection: Text = "audit_db"
    staff: StaffTable | None = None
    auditors: Annotated[StaffGroup, AfterValidator(_has_members)]
    seed: Seed
    return_within: PositivePeriod = Period.parse("P30D")
    mend_within: PositivePeriod = Period.parse("P30D")
    populations: Annotated[tuple[Population, ...], AfterValidator(require_items)]

    @model_validator(mode="after")
    def _conditions_have_staff(self) -> AuditRules:
        if self.staff is None and self.auditors.where:
            raise ValueError("a condition over staff needs the staff table: staff: {...}")
        return self

    def find(self, name: str) -> Population | None:
        """Return the population with the given id, or None if audit.yaml has no such population."""
        return next((population for population in self.populations if population.id == name), None)

    def population(self, name: str) -> Population:
        """Return the population with the given id.

        Raises:
            UsageError: audit.yaml has no such population.
        """
        match = self.find(name)
        if match is not None:
            return match
        names = ", ".join(population.id for population in self.populations)
        raise UsageError(f"The policy pack has no population {name}.", f"It has: {names}.")


def check_rules(rules: AuditRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield the faults of audit.yaml: duplicate populations, and unknown databases or roles."""
    yield from staff_faults(rules.staff, pack.inventory)
    yield from find_duplicates(
        "populations", "id", [repr(population.id) for population in rules.populations]
    )
    for number, population in enumerate(rules.populations):
        if population.database not in pack.inventory:
            message = f"the pack maps no database {population.database!r}"
            yield ("populations", number, "database"), message
        if population.owner not in pack.roles:
            message = f"roles.yaml has no role {population.owner!r}"
            yield ("populations", number, "owner"), message


AUDIT = RuleSection("audit.yaml", AuditRules, check_rules, page="explanation/audit.md")
