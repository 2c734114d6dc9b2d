"""A hand-made draw: populations with real plans, samples and workpapers, and what comes back."""

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
from include.sampling.commitment import Commitment, Committed, PlanKind, Sealed, plan_for
from include.sampling.issue import Issued
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


def committed(
    name: str = "shares",
    strata: Mapping[str, int] | int = 40,
    *,
    plan: PlanKind = "single",
    tolerable: str = "10%",
    expected: str = "0",
    confidence: str = "90%",
    attributes: tuple[str, ...] = ("approved", "bound"),
) -> Committed:
    """A population that was committed to, with the plan that a run would make for it."""
    stratified = not isinstance(strata, int)
    sizes = {"": strata} if isinstance(strata, int) else dict(strata)
    rates = {"tolerable": tolerable, "expected": expected, "confidence": confidence}
    exact = {key: _rate(text) for key, text in rates.items()}
    return Committed(
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


def drawn_of(one: Committed, audit: str = "2026Q3") -> Sample:
    """Its sample, drawn from a frame of ids of its own."""
    lines = [
        f"{one.population}-{stratum}-{number:05}" + (f"\t{stratum}" if one.stratified else "")
        for stratum, size in one.strata.items()
        for number in range(1, size + 1)
    ]
    return sample("3841.22", audit, one, io.BytesIO("".join(f"{it}\n" for it in lines).encode()))


def answered(
    one: Committed, found: Sample, other: Mapping[int, Mapping[str, Answer]] | None = None
) -> dict[tuple[str, int], ItemAnswers]:
    """Answers to all its items: met where nothing else is said."""
    return {
        (one.population, item.number): ItemAnswers(
            dict.fromkeys(one.attributes, Answer.MET) | dict((other or {}).get(item.number, {})),
            "",
        )
        for item in found.items
    }


def bad(*numbers: int) -> dict[int, dict[str, Answer]]:
    """These items are not approved."""
    return {number: {"approved": Answer.DEVIATES} for number in numbers}


def rules(*populations: str, **more: Any) -> AuditRules:
    """audit.yaml of these populations."""
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
    """A draw whose workpapers were issued.

    Attributes:
        committed: by population.
        samples: by population.
        papers: of its first stage.
        rules: by which it was made.
    """

    committed: Mapping[str, Committed]
    samples: Mapping[str, Sample]
    papers: Workpapers
    rules: AuditRules

    def issue(self, conn: Connection) -> None:
        """Keep its workpapers as issued."""
        issue.remember(conn, RUN, self.papers, self.committed, self.samples)


def draw(*populations: Committed, audit: str = "2026Q3", at: datetime = ISSUED) -> Draw:
    """Draw populations of a quarter."""
    made = Commitment(
        audit=audit,
        starts=datetime(2026, 6, 30, 16, tzinfo=UTC),
        ends=datetime(2026, 9, 30, 16, tzinfo=UTC),
        seed_source="dice",
        policy_hash="ef" * 32,
        code_version="1",
        populations=populations,
    )
    samples = {one.population: drawn_of(one, audit) for one in populations}
    seed = Seed(
        seed="3841.22",
        source="dice",
        published_at=at,
        entered_by="auditor",
        entered_at=at,
        commitment=Sealed(bundle="b", sums_sha256="00" * 32, sealed_at=at),
    )
    asked = rules(*(one.population for one in populations))
    files = {name: one.to_bytes() for name, one in samples.items()}
    return Draw(
        {one.population: one for one in populations},
        samples,
        issue.workpapers(made, files, asked, seed, 1, ZONE),
        asked,
    )


def concluding(
    state: Engine,
    asked: AuditRules | None,
    at: datetime = ISSUED,
    run: str = "r1",
    quarter: str | None = None,
) -> RunContext[None]:
    """The context of a run of `conclude_audit` at a moment; without rules the pack has none."""
    sections = {} if asked is None else {AUDIT.file: asked}
    pack = pack_of({"courier": "customer_db"}, sections, roles={OWNER.id: OWNER})
    services = services_of(pack, {}, state, FixedClock(at))
    parameters = {"quarter": quarter}
    return RunContext(services, None, Run("conclude_audit", run), parameters=parameters)


def returned(
    issued: Workpapers,
    deviating: Mapping[str, tuple[int, ...]] | None = None,
    notes: Mapping[tuple[str, int], str] | None = None,
    people: Mapping[str, object] = PEOPLE,
) -> bytes:
    """The workbook as auditors hand it in: these items are not approved, all else is met."""
    answers = {
        (name, number, "approved"): WORDS[Answer.DEVIATES]
        for name, numbers in (deviating or {}).items()
        for number in numbers
    }

    def work(book: Workbook) -> None:
        fill(book, issued, answers, notes, people)

    return edited(write(issued), work)


def hand_in(state: Engine, content: bytes, at: datetime = ISSUED) -> Issued:
    """Hand a workbook in."""
    with state.begin() as conn:
        return issue.hand_in(conn, content, "filled.xlsx", by="auditor", at=at)
