"""Fixtures: a draw without a run, with real plans, samples, workpapers and returned workbooks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from openpyxl import Workbook
from sqlalchemy import Connection, Engine

from include.notify.outbox import Run
from include.policy.rules import Role
from include.sampling import issue
from include.sampling.commitment import (
    Commitment,
    CommitmentLocation,
    CommittedPopulation,
    PlanKind,
    plan_for,
)
from include.sampling.issue import IssuedWorkpapers
from include.sampling.rules import AUDIT, AuditRules
from include.sampling.samples import Sample, Seed, sample
from include.sampling.workpapers.form import WORDS, Answer
from include.sampling.workpapers.reading import ItemAnswers
from include.sampling.workpapers.writing import Workpapers, write
from include.services.clock import FixedClock
from include.workflow.run_context import RunContext
from tests.sampling.workpapers.support import PEOPLE, edited, fill
from tests.support.contexts import pack_of, services_of

OWNER = Role(
    id="management",
    title={"en": "Management", "zh-CN": "公司管理层"},
    mail=("management@shop.example",),
)
ISSUED = datetime(2026, 10, 5, 1, 30, tzinfo=UTC)  # 09:30 in Shanghai
ZONE = "Asia/Shanghai"
RUN = Run("sample_audit", "drawn")
QUESTION = {"en": "Was it approved?", "zh-CN": "是否已审批？"}


def committed_population(
    name: str = "shares",
    strata: Mapping[str, int] | int = 40,
    *,
    plan: PlanKind = "single",
    tolerable: str = "10%",
    expected: str = "0",
    confidence: str = "90%",
    attributes: tuple[str, ...] = ("approved", "bound"),
) -> CommittedPopulation:
    """Return a committed population with the plan that a run would compute.

    Args:
        name: id of the population.
        strata: stratum -> number of its items; or the number of items of a population without
            strata.
        plan: kind of sampling plan.
        tolerable: tolerable rate.
        expected: expected deviation rate.
        confidence: one minus the risk of accepting a population with the tolerable rate.
        attributes: ids of the questions about each sample item.
    """
    stratified = not isinstance(strata, int)
    sizes = {"": strata} if isinstance(strata, int) else dict(strata)
    rates = {"tolerable": tolerable, "expected": expected, "confidence": confidence}
    exact = {key: _rate(text) for key, text in rates.items()}
    return CommittedPopulation(
        population=name,
        file=f"frames/{name}.tsv",
        sha256="cd" * 32,
        items=sum(sizes.values()),
        strata=sizes,
        stratified=stratified,
        planned_as=plan,
        plan=plan_for(plan, *exact.values(), sizes, stratified=stratified),
        attributes=attributes,
        **exact,
    )


def _rate(text: str) -> Fraction:
    return Fraction(text.rstrip("%")) / (100 if text.endswith("%") else 1)


def draw_sample(committed: CommittedPopulation, audit: str = "2026Q3") -> Sample:
    """Draw the sample of a population from a frame with generated ids."""
    lines = [
        f"{committed.population}-{stratum}-{number:05}"
        + (f"\t{stratum}" if committed.stratified else "")
        for stratum, size in committed.strata.items()
        for number in range(1, size + 1)
    ]
    return sample(
        "3841.22", audit, committed, io.BytesIO("".join(f"{line}\n" for line in lines).encode())
    )


def answers_for(
    committed: CommittedPopulation,
    sample: Sample,
    other: Mapping[int, Mapping[str, Answer]] | None = None,
) -> dict[tuple[str, int], ItemAnswers]:
    """Return answers to all items of a sample.

    Args:
        committed: the population.
        sample: sample of the population.
        other: answers by number of the item and id of the attribute; all other answers are ``MET``.
    """
    return {
        (committed.population, item.number): ItemAnswers(
            dict.fromkeys(committed.attributes, Answer.MET)
            | dict((other or {}).get(item.number, {})),
            "",
        )
        for item in sample.items
    }


def not_approved(*numbers: int) -> dict[int, dict[str, Answer]]:
    """Return answers in which the items with these numbers do not meet "approved"."""
    return {number: {"approved": Answer.DEVIATES} for number in numbers}


def audit_rules(*populations: str, **more: Any) -> AuditRules:
    """Return the rules of an audit.yaml with the given populations.

    Args:
        populations: ids of the populations.
        more: keys of audit.yaml that replace the default keys.
    """
    return AuditRules.model_validate(
        {
            "auditors": {"accounts": ["auditor"]},
            "seed": {"source": {"en": "dice", "zh-CN": "骰子"}},
            "populations": [
                {
                    "id": name,
                    "title": {"en": name.title(), "zh-CN": f"总体{name}"},
                    "owner": "management",
                    "database": "courier",
                    "sql": "SELECT 1 AS id",
                    "tolerable": "10%",
                    "attributes": [
                        {"id": "approved", "question": QUESTION, "basis": "business"},
                        {
                            "id": "bound",
                            "question": {"en": "Was it bound?", "zh-CN": "是否受约束？"},
                            "basis": {
                                "instrument": {"en": "PIPL", "zh-CN": "《个人信息保护法》"},
                                "version": "2021-11-01",
                                "article": "23",
                            },
                        },
                    ],
                }
                for name in populations
            ],
        }
        | more
    )


@dataclass(frozen=True)
class Draw:
    """The samples of a quarter, with the workpapers of the first stage.

    Attributes:
        committed: populations of the commitment, by id.
        samples: samples by population.
        papers: workpapers of the first stage.
        rules: audit.yaml of the draw.
    """

    committed: Mapping[str, CommittedPopulation]
    samples: Mapping[str, Sample]
    papers: Workpapers
    rules: AuditRules

    def issue(self, conn: Connection) -> None:
        """Record that the workpapers were issued."""
        issue.record_workpapers(conn, RUN, self.papers, self.committed, self.samples)


def make_draw(
    *populations: CommittedPopulation, audit: str = "2026Q3", at: datetime = ISSUED
) -> Draw:
    """Draw the samples of a quarter's populations, and create the workpapers of the first stage."""
    commitment = Commitment(
        audit=audit,
        starts=datetime(2026, 6, 30, 16, tzinfo=UTC),
        ends=datetime(2026, 9, 30, 16, tzinfo=UTC),
        seed_source="dice",
        policy_hash="ef" * 32,
        code_version="1",
        populations=populations,
    )
    samples = {population.population: draw_sample(population, audit) for population in populations}
    seed = Seed(
        seed="3841.22",
        source="dice",
        published_at=at,
        entered_by="auditor",
        entered_at=at,
        commitment=CommitmentLocation(bundle="b", sums_sha256="00" * 32, sealed_at=at),
    )
    rules = audit_rules(*(population.population for population in populations))
    files = {name: sample.to_bytes() for name, sample in samples.items()}
    return Draw(
        {population.population: population for population in populations},
        samples,
        issue.workpapers(commitment, files, rules, seed, 1, ZONE),
        rules,
    )


def conclusion_context(
    state: Engine,
    rules: AuditRules | None,
    at: datetime = ISSUED,
    run: str = "r1",
    quarter: str | None = None,
) -> RunContext[None]:
    """Return the context of a run of `conclude_audit`.

    Args:
        state: the state database.
        rules: audit.yaml; None for a policy pack without audit.yaml.
        at: current time.
        run: id of the run.
        quarter: quarter to conclude; None for all quarters.
    """
    sections = {} if rules is None else {AUDIT.file: rules}
    pack = pack_of({"courier": "customer_db"}, sections, roles={OWNER.id: OWNER})
    services = services_of(pack, {}, state, FixedClock(at))
    parameters = {"quarter": quarter}
    return RunContext(services, None, Run("conclude_audit", run), parameters=parameters)


def returned_workbook(
    issued: Workpapers,
    deviating: Mapping[str, tuple[int, ...]] | None = None,
    notes: Mapping[tuple[str, int], str] | None = None,
    people: Mapping[str, object] = PEOPLE,
) -> bytes:
    """Return a completed workbook.

    Args:
        issued: the workpapers as issued.
        deviating: numbers of the items that are not approved, by population; all other answers are
            yes.
        notes: notes of the auditor by population and number of the item.
        people: values of the fields on the first sheet.
    """
    answers = {
        (name, number, "approved"): WORDS[Answer.DEVIATES]
        for name, numbers in (deviating or {}).items()
        for number in numbers
    }

    def work(book: Workbook) -> None:
        fill(book, issued, answers, notes, people)

    return edited(write(issued), work)


def hand_in(state: Engine, content: bytes, at: datetime = ISSUED) -> IssuedWorkpapers:
    """Hand in a completed workbook."""
    with state.begin() as conn:
        return issue.hand_in(conn, content, "filled.xlsx", by="auditor", at=at)
