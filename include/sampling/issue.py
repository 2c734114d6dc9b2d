"""Workpapers of a stage: made from the draw, issued to auditors, and returned."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, TypeAdapter
from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.approvals.reasons import names_a_person, value_free_reason
from include.frozen import FrozenModel
from include.messages import Message
from include.notify.outbox import Run
from include.sampling import register
from include.sampling.commitment import Commitment, Committed
from include.sampling.rules import Attribute, AuditRules, sample_file
from include.sampling.samples import Drawn, Sample, Seed
from include.sampling.tables import audit_workpapers
from include.sampling.workpapers import form, writing
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers, Returned, draw_of, read
from include.sampling.workpapers.writing import Item, Paper, Workpapers
from include.services.errors import UsageError


def draw_digest(samples: Mapping[str, bytes]) -> str:
    """Return the digest that binds workpapers to a draw.

    It is SHA-256 over the lines that `sha256sum samples/*.json` prints in the bundle, sorted by
    name.

    Args:
        samples: content of each sample's file, by population.
    """
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {sample_file(population)}\n"
        for population, content in sorted(samples.items())
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def workpapers(
    commitment: Commitment,
    samples: Mapping[str, bytes],
    rules: AuditRules,
    seed: Seed,
    stage: int,
    timezone: str,
) -> Workpapers:
    """Make the workpapers of one stage: the same for the same draw.

    Args:
        commitment: of the run.
        samples: content of each sample's file, by population.
        rules: audit.yaml.
        seed: by which they were drawn.
        stage: from 1; populations that have no such stage, or no sample here, are not among them.
        timezone: of times that people read.
    """
    papers = []
    for one in commitment.populations:
        if one.population not in samples:  # another run drew it
            continue
        drawn = Sample.model_validate_json(samples[one.population]).of_stage(stage)
        if not drawn:
            continue
        population = rules.population(one.population)
        papers.append(
            Paper(
                population=one.population,
                title=population.message,
                attributes=tuple(map(_attribute, population.attributes)),
                items=tuple(map(_item, drawn)),
                frame_sha256=one.sha256,
                population_size=one.items,
            )
        )
    return Workpapers(
        audit=commitment.audit,
        stage=stage,
        draw_sha256=draw_digest(samples),
        issued_at=seed.entered_at,
        timezone=timezone,
        papers=tuple(papers),
    )


def stage_papers(
    before: Workpapers,
    committed: Mapping[str, Committed],
    samples: Mapping[str, Sample],
    wanted: Collection[str],
    at: datetime,
) -> Workpapers:
    """Make the workpapers of the stage after one that was issued, with the same questions.

    Args:
        before: of the stage before.
        committed: by population.
        samples: by population.
        wanted: populations whose plan calls for it.
        at: the moment of issue.
    """
    stage = before.stage + 1
    papers = [
        replace(
            paper,
            items=tuple(map(_item, samples[paper.population].of_stage(stage))),
            population_size=committed[paper.population].items,
        )
        for paper in before.papers
        if paper.population in wanted
    ]
    return replace(before, stage=stage, issued_at=at, papers=tuple(papers))


def _item(one: Drawn) -> Item:
    return Item(one.number, one.stage, one.line, one.key, one.stratum)


def _attribute(one: Attribute) -> writing.Attribute:
    return writing.Attribute(id=one.id, question=one.message, criterion=_criterion(one))


def _criterion(one: Attribute) -> Message:
    """The source of what is asked: no words of the catalogue, which may be bettered meanwhile."""
    if isinstance(one.basis, str):
        cited = {
            "en": "the company's own information protection policy",
            "zh-CN": "公司自行制定的信息保护制度",
        }
    else:
        name, version, article = one.basis.instrument, one.basis.version, one.basis.article
        cited = {
            "en": f"{name['en']} ({version}), article {article}",
            "zh-CN": f"{name['zh-CN']}（{version}）第 {article} 条",
        }
    return Message(text=cited["en"], translations=cited)


_WORKPAPERS = TypeAdapter(Workpapers)


class ItemFound(FrozenModel):
    """The answers about an item.

    Attributes:
        population: its id.
        number: of the item in the workpapers.
        answers: by id of the attribute.
        note: the auditor's words, without customers' numbers.
    """

    population: str
    number: int
    answers: dict[str, Answer]
    note: str


class Replaced(FrozenModel):
    """Workpapers that were handed in before, and replaced.

    Attributes:
        file_sha256: hex digest of the file.
        returned_by: who brought it back.
        returned_at: when.
        changed: items that were answered otherwise than in what replaced it.
    """

    file_sha256: str
    returned_by: str
    returned_at: AwareDatetime
    changed: int


class HandedIn(FrozenModel):
    """``answers-<part>.json``: what auditors answered, without the file itself.

    The file may hold what nobody asked for, customers' data among it: it stays with the auditors,
    and its digest says which one it was.

    Attributes:
        file_sha256: hex digest of the file.
        returned_by: who brought it back.
        returned_at: when.
        performed_by: who did the work.
        performed_on: the day; None when nobody wrote it.
        reviewed_by: who reviewed it; empty when nobody wrote it.
        remarks: what is no fault and should be known.
        items: in the order of the workpapers.
        replaced: what was handed in before, oldest first; what comes last counts.
    """

    file_sha256: str
    returned_by: str
    returned_at: AwareDatetime
    performed_by: str
    performed_on: date | None
    reviewed_by: str
    remarks: tuple[Message, ...]
    items: tuple[ItemFound, ...]
    replaced: tuple[Replaced, ...] = ()

    @property
    def answers(self) -> dict[tuple[str, int], ItemAnswers]:
        """Answers by population and number."""
        return {
            (item.population, item.number): ItemAnswers(item.answers, item.note)
            for item in self.items
        }

    def to_bytes(self) -> bytes:
        """Return the file of the bundle."""
        return (self.model_dump_json(indent=1) + "\n").encode()


@dataclass(frozen=True)
class Issued:
    """Workpapers of a stage of a draw, with their commitments and samples.

    Attributes:
        workpapers: as they were issued.
        committed: by population.
        samples: by population.
        run: that issued them.
        issued_at: when.
        handed_in: what came back; None while they are out.
    """

    workpapers: Workpapers
    committed: Mapping[str, Committed]
    samples: Mapping[str, Sample]
    run: Run
    issued_at: datetime
    handed_in: HandedIn | None = None

    @property
    def audit(self) -> str:
        """The quarter."""
        return self.workpapers.audit

    @property
    def stage(self) -> int:
        """Of sampling, from 1."""
        return self.workpapers.stage

    @property
    def draw(self) -> str:
        """Digest of the draw."""
        return self.workpapers.draw_sha256

    @property
    def part(self) -> str:
        """Names it among all others: ``2026Q3-1-0f3a9c``."""
        return f"{self.audit}-{self.stage}-{self.draw[:6]}"


def _clean(note: str) -> str:
    return value_free_reason(note, form.LONGEST_NOTE)


def remember(
    conn: Connection,
    run: Run,
    workpapers: Workpapers,
    committed: Mapping[str, Committed],
    samples: Mapping[str, Sample],
) -> None:
    """Store issued workpapers, so that returned ones are compared with exactly these."""
    issued = {
        "workpapers": _WORKPAPERS.dump_python(workpapers, mode="json"),
        "committed": {name: one.model_dump(mode="json") for name, one in committed.items()},
        "samples": {name: one.model_dump(mode="json") for name, one in samples.items()},
    }
    row = {
        "draw_sha256": workpapers.draw_sha256,
        "stage": workpapers.stage,
        "audit": workpapers.audit,
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "issued_at": workpapers.issued_at,
        "issued": issued,
    }
    conn.execute(insert(audit_workpapers).values(row).on_conflict_do_nothing())


def all_issued(conn: Connection, audit: str | None = None) -> list[Issued]:
    """Return the issued workpapers of an audit, or of all audits, oldest first."""
    table = audit_workpapers.c
    query = select(audit_workpapers).order_by(table.issued_at, table.stage, table.draw_sha256)
    if audit is not None:
        query = query.where(table.audit == audit)
    return [_issued(dict(row)) for row in conn.execute(query).mappings()]


def of_draw(conn: Connection, draw: str) -> list[Issued]:
    """Return the stages of a draw that were issued, the first one first.

    They are locked to the end of the transaction: what is judged does not change meanwhile.
    """
    table = audit_workpapers.c
    query = select(audit_workpapers).where(table.draw_sha256 == draw).order_by(table.stage)
    conn.execute(query.with_only_columns(table.stage).with_for_update())
    # Asked again: a stage that was issued while this waited for the lock would not be in its answer
    return [_issued(dict(row)) for row in conn.execute(query).mappings()]


def hand_in(conn: Connection, content: bytes, name: str, *, by: str, at: datetime) -> Issued:
    """Take workpapers back, or refuse them with every fault; nothing is kept of refused ones.

    Until the conclusion another file may take its place; afterwards none does.

    Args:
        conn: the state database, in a transaction.
        content: the file.
        name: its name, for messages.
        by: who brings it back.
        at: the moment.

    Raises:
        UsageError: the file is not one of those that were issued, has faults, or was concluded on.
    """
    if not by.strip():
        raise UsageError("Nobody is named who hands them in.", "Name the person with --by.")
    if names_a_person(by):
        raise UsageError("--by holds a mobile or ID number.", "Write a name or a staff number.")
    draw, stage = draw_of(content, name)
    table = audit_workpapers.c
    stages = of_draw(conn, draw)
    issued = next((each for each in stages if each.stage == stage), None)
    if issued is None:
        raise UsageError(
            f"{name} belongs to no draw that this register knows.",
            "Fill in the workpapers.xlsx of the bundle of sample_audit.",
        )
    reached = register.of_audit(conn, issued.audit)
    went_on = any(each.stage > stage for each in stages)
    if went_on or any(paper.population in reached for paper in issued.workpapers.papers):
        raise UsageError(
            f"The audit {issued.audit}, stage {stage}, was concluded on other workpapers.",
            "A conclusion stands; what was overlooked is tested again by its finding.",
        )
    returned = read(content, name, issued.workpapers, clean=_clean)  # refuses with every fault
    zone = ZoneInfo(issued.workpapers.timezone)
    if returned.performed_on and returned.performed_on > at.astimezone(zone).date():
        raise UsageError(
            f"{name} says that the work was done on {returned.performed_on}, which is to come.",
            "Write the day on which it was done.",
        )
    handed_in = _handed_in(returned, hashlib.sha256(content).hexdigest(), by.strip(), at)
    handed_in = _in_place_of(issued.handed_in, handed_in)
    conn.execute(
        audit_workpapers.update()
        .where(table.draw_sha256 == draw, table.stage == stage)
        .values(
            returned_at=at,
            returned_by=handed_in.returned_by,
            file_sha256=handed_in.file_sha256,
            returned=handed_in.model_dump(mode="json"),
        )
    )
    return replace(issued, handed_in=handed_in)


def _in_place_of(before: HandedIn | None, now: HandedIn) -> HandedIn:
    """Return handed-in workpapers with those that they replace; the same file replaces nothing."""
    if before is None:
        return now
    if before.file_sha256 == now.file_sha256:
        return before
    old = {(item.population, item.number): item for item in before.items}
    changed = sum(old.get((item.population, item.number)) != item for item in now.items)
    last = Replaced(
        file_sha256=before.file_sha256,
        returned_by=before.returned_by,
        returned_at=before.returned_at,
        changed=changed,
    )
    return now.model_copy(update={"replaced": (*before.replaced, last)})


def _handed_in(returned: Returned, digest: str, by: str, at: datetime) -> HandedIn:
    return HandedIn(
        file_sha256=digest,
        returned_by=by,
        returned_at=at,
        performed_by=returned.performed_by,
        performed_on=returned.performed_on,
        reviewed_by=returned.reviewed_by,
        remarks=tuple(remark.message for remark in returned.remarks),
        items=tuple(
            ItemFound(
                population=population, number=number, answers=dict(one.answers), note=one.note
            )
            for (population, number), one in returned.answers.items()
        ),
    )


def _issued(row: dict[str, Any]) -> Issued:
    issued = row["issued"]
    return Issued(
        workpapers=_WORKPAPERS.validate_python(issued["workpapers"]),
        committed={
            name: Committed.model_validate(one) for name, one in issued["committed"].items()
        },
        samples={name: Sample.model_validate(one) for name, one in issued["samples"].items()},
        run=Run(row["dag_id"], row["run_id"]),
        issued_at=row["issued_at"],
        handed_in=HandedIn.model_validate(row["returned"]) if row["returned"] else None,
    )
