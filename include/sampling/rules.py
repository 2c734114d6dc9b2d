"""audit.yaml: audited populations, tolerable rates and confidence, and the auditors.

The author of the pack is trusted with the SQL of populations, as the author of a migration is;
docs/audit.md explains every key. Names of the audit's clause, findings, bundles and files stand
here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints, model_validator

from include.messages import Message
from include.policy.mapping import Group, Staff, staff_faults
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
    in_languages,
    some,
)
from include.policy.section import Loc, PackNames, RuleSection, SectionRules, twice
from include.services.errors import UsageError

CLAUSE = "6.1"
FINDINGS = "audit"  # their kind in the register
NOTICE = "audit.finding"  # kind of the notices to their owners
COMMITMENT_WORKFLOW = "sample_commitment"  # of the bundle that is sealed before the seed is known
COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE = "commitment.json", "seed.json", "workpapers.xlsx"


def stage_file(part: str) -> str:
    """Return the name of the workpapers of a later stage in a bundle."""
    return f"workpapers-{part}.xlsx"


def verdict_file(part: str) -> str:
    """Return the name of the file with the verdicts on workpapers in a bundle."""
    return f"verdicts-{part}.json"


def answers_file(part: str) -> str:
    """Return the name of the file with auditors' answers in a bundle."""
    return f"answers-{part}.json"


def frame_file(population: str) -> str:
    """Return the name of a frozen frame in a bundle."""
    return f"frames/{population}.tsv"


def sample_file(population: str) -> str:
    """Return the name of a drawn sample in a bundle."""
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
    """A question about every drawn item.

    Attributes:
        id: stable name, ``approved``.
        question: what the auditor answers with yes or no; no is a deviation. By language.
        basis: the source of what is asked, or ``business`` for the company's own rule.
    """

    id: Identifier
    question: Texts
    basis: Basis

    @property
    def message(self) -> Message:
        """The question for a workpaper."""
        return in_languages(self.question)


class Population(Rule):
    """One population of audit.yaml.

    Attributes:
        id: stable name, ``accesses``.
        title: its name, by language.
        owner: role of roles.yaml whose work it is; findings go to it.
        database: database of the data map.
        sql: SELECT with a column ``id``, unique and no customer's value, and ``stratum`` where
            ``strata`` is said. Inside it ``period.starts`` and ``period.ends`` are the audited
            quarter.
        strata: what the strata are, by language; every one gives its share of the sample.
        tolerable: rate of deviations from which on the population is not accepted.
        expected: rate that is expected; decides how many deviations are accepted.
        confidence: one minus the risk of accepting what deviates at the tolerable rate.
        plan: ``single`` stage; two stages planned together, ``staged``; or ``discovery``, which
            looks for a single deviation.
        attributes: what is tested.
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
    attributes: Annotated[tuple[Attribute, ...], AfterValidator(some)]

    @property
    def message(self) -> Message:
        """The title for a report."""
        return in_languages(self.title)

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
    """The source of seeds.

    Attributes:
        source: which public value is taken, said so exactly before it is known that nobody can
            choose: the first closing value of an index after the commitment, throws of dice before
            witnesses. By language.
        response: how long a run waits for the auditor who enters it.
    """

    source: Texts
    response: PositivePeriod = SEED_RESPONSE

    @property
    def message(self) -> Message:
        """The source for a report."""
        return in_languages(self.source)


def _somebody(group: Group) -> Group:
    if not group.accounts and group.where is None:
        raise ValueError("should name somebody: nobody could enter a seed")
    return group


class AuditRules(SectionRules):
    """audit.yaml.

    Attributes:
        connection: id of the Airflow connection that reads populations; the database's own where it
            is not configured.
        staff: staff table, for groups that have a condition.
        auditors: those who enter seeds and answer for the work.
        seed: where seeds come from.
        return_within: period from the draw in which workpapers should be back.
        mend_within: period from the conclusion in which a deviation should be mended and tested
            again.
        populations: what is audited.
    """

    connection: Text = "audit_db"
    staff: Staff | None = None
    auditors: Annotated[Group, AfterValidator(_somebody)]
    seed: Seed
    return_within: PositivePeriod = Period.parse("P30D")
    mend_within: PositivePeriod = Period.parse("P30D")
    populations: Annotated[tuple[Population, ...], AfterValidator(some)]

    @model_validator(mode="after")
    def _conditions_have_staff(self) -> AuditRules:
        if self.staff is None and self.auditors.where:
            raise ValueError("a condition over staff needs the staff table: staff: {...}")
        return self

    def find(self, name: str) -> Population | None:
        """The population of that id; None when the pack has none."""
        return next((population for population in self.populations if population.id == name), None)

    def population(self, name: str) -> Population:
        """The population of that id.

        Raises:
            UsageError: the pack has none of that id.
        """
        found = self.find(name)
        if found is not None:
            return found
        known = ", ".join(population.id for population in self.populations)
        raise UsageError(f"The policy pack has no population {name}.", f"It has: {known}.")


def check_rules(rules: AuditRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield what audit.yaml names and the rest of the pack does not have."""
    yield from staff_faults(rules.staff, pack.inventory)
    yield from twice("populations", "id", [repr(population.id) for population in rules.populations])
    for number, population in enumerate(rules.populations):
        if population.database not in pack.inventory:
            message = f"the pack maps no database {population.database!r}"
            yield ("populations", number, "database"), message
        if population.owner not in pack.roles:
            message = f"roles.yaml has no role {population.owner!r}"
            yield ("populations", number, "owner"), message


AUDIT = RuleSection("audit.yaml", AuditRules, check_rules, page="audit.md")
