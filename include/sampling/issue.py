"""Create and issue the workpapers of a stage, and store the answers that auditors return."""

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

from include.approvals.reasons import has_personal_number, redact_reason
from include.frozen import FrozenModel
from include.messages import Message
from include.notify.outbox import Run
from include.sampling import register
from include.sampling.commitment import Commitment, CommittedPopulation
from include.sampling.rules import Attribute, AuditRules, sample_file
from include.sampling.samples import Sample, SampleItem, Seed
from include.sampling.tables import audit_workpapers
from include.sampling.workpapers import form, writing
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers, Returned, draw_of, read
from include.sampling.workpapers.writing import Item, Paper, Workpapers
from include.services.errors import UsageError


def draw_digest(samples: Mapping[str, bytes]) -> str:
    """Return the digest that identifies the draw to which workpapers belong.

    The digest is the SHA-256 of the output of `sha256sum samples/*.json` in the evidence bundle,
    with the lines sorted by file name.

    Args:
        samples: population -> bytes of the file with its sample.
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
    """Create the workpapers of a stage from the samples; the same draw gives the same workpapers.

    Args:
        commitment: commitment of the run.
        samples: population -> bytes of the file with its sample.
        rules: audit.yaml.
        seed: random seed of the draw. The time at which it was entered is the time of issue.
        stage: stage of the workpapers; the first stage is 1. Populations without this stage or
            without a sample are omitted.
        timezone: timezone of the times that the workpapers show.
    """
    papers = []
    for committed in commitment.populations:
        if committed.population not in samples:  # another run drew it
            continue
        drawn = Sample.model_validate_json(samples[committed.population]).of_stage(stage)
        if not drawn:
            continue
        population = rules.population(committed.population)
        papers.append(
            Paper(
                population=committed.population,
                title=population.message,
                attributes=tuple(map(_attribute, population.attributes)),
                items=tuple(map(_item, drawn)),
                frame_sha256=committed.sha256,
                population_size=committed.items,
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
    committed: Mapping[str, CommittedPopulation],
    samples: Mapping[str, Sample],
    populations: Collection[str],
    at: datetime,
) -> Workpapers:
    """Create the workpapers of the next stage, with the same questions as in the previous stage.

    Args:
        before: workpapers of the previous stage.
        committed: population id -> population in the commitment.
        samples: population id -> sample with the items of all stages.
        populations: ids of the populations whose sampling plan requires the next stage.
        at: time of issue.
    """
    stage = before.stage + 1
    papers = [
        replace(
            paper,
            items=tuple(map(_item, samples[paper.population].of_stage(stage))),
            population_size=committed[paper.population].items,
        )
        for paper in before.papers
        if paper.population in populations
    ]
    return replace(before, stage=stage, issued_at=at, papers=tuple(papers))


def _item(drawn: SampleItem) -> Item:
    return Item(drawn.number, drawn.stage, drawn.line, drawn.key, drawn.stratum)


def _attribute(attribute: Attribute) -> writing.Attribute:
    return writing.Attribute(
        id=attribute.id, question=attribute.message, criterion=_criterion(attribute)
    )


def _criterion(attribute: Attribute) -> Message:
    """Return the law or standard from which a question comes, in the words of the policy pack.

    The text is not translated with the message catalogue: a translation in the catalogue may change
    after the workpapers were issued, but returned workpapers must have the same words as issued
    ones.
    """
    if isinstance(attribute.basis, str):
        cited = {
            "en": "the company's own information protection policy",
            "zh-CN": "公司自行制定的信息保护制度",
        }
    else:
        cited = attribute.basis.citations
    return Message(text=cited["en"], translations=cited)


_WORKPAPERS = TypeAdapter(Workpapers)


class AnsweredItem(FrozenModel):
    """The auditor's answers about a sample item.

    Attributes:
        population: id of the population.
        number: number of the item in the workpapers.
        answers: id of the attribute -> answer.
        note: note of the auditor, in which mobile and ID numbers of customers are redacted.
    """

    population: str
    number: int
    answers: dict[str, Answer]
    note: str


class ReplacedReturn(FrozenModel):
    """A workbook that was handed in and later replaced with another workbook.

    Attributes:
        file_sha256: hex digest of the replaced workbook.
        returned_by: person who handed in the replaced workbook.
        returned_at: time at which the replaced workbook was handed in.
        changed: number of items whose answers or note differ between the two workbooks.
    """

    file_sha256: str
    returned_by: str
    returned_at: AwareDatetime
    changed: int


class ReturnedAnswers(FrozenModel):
    """The data of the file ``answers-<name of the workpapers>.json``: the auditors' answers.

    The file does not contain the workbook, which may have data that nobody asked for, such as
    customer data. The auditors keep the workbook, and its digest identifies it.

    Attributes:
        file_sha256: hex digest of the workbook.
        returned_by: person who handed in the workbook.
        returned_at: time at which the workbook was handed in.
        performed_by: person who tested the items.
        performed_on: day on which the items were tested; None if the workbook does not state it.
        reviewed_by: person who reviewed the workpapers; empty if the workbook names nobody.
        remarks: remarks on the workbook that do not prevent its evaluation.
        items: answers about the items, in the order of the workpapers.
        replaced: workbooks that were handed in earlier, oldest first. Their answers are not used.
    """

    file_sha256: str
    returned_by: str
    returned_at: AwareDatetime
    performed_by: str
    performed_on: date | None
    reviewed_by: str
    remarks: tuple[Message, ...]
    items: tuple[AnsweredItem, ...]
    replaced: tuple[ReplacedReturn, ...] = ()

    @property
    def answers(self) -> dict[tuple[str, int], ItemAnswers]:
        """The auditors' answers: (population, number of the item) -> answers."""
        return {
            (item.population, item.number): ItemAnswers(item.answers, item.note)
            for item in self.items
        }

    def to_bytes(self) -> bytes:
        """Return the bytes of the file ``answers-<name of the workpapers>.json``."""
        return (self.model_dump_json(indent=1) + "\n").encode()


@dataclass(frozen=True)
class IssuedWorkpapers:
    """The issued workpapers of a stage, with the commitment and samples on which they are based.

    Attributes:
        workpapers: the workpapers as issued.
        committed: population id -> population in the commitment.
        samples: population id -> sample.
        run: the run that issued the workpapers.
        issued_at: time of issue.
        handed_in: answers of the auditors; None if the workpapers were not returned.
    """

    workpapers: Workpapers
    committed: Mapping[str, CommittedPopulation]
    samples: Mapping[str, Sample]
    run: Run
    issued_at: datetime
    handed_in: ReturnedAnswers | None = None

    @property
    def audit(self) -> str:
        """The id of the audited quarter, such as ``2026Q3``."""
        return self.workpapers.audit

    @property
    def stage(self) -> int:
        """The stage of the workpapers; the first stage is 1."""
        return self.workpapers.stage

    @property
    def draw(self) -> str:
        """The digest that identifies the draw, see `draw_digest`."""
        return self.workpapers.draw_sha256

    @property
    def name(self) -> str:
        """The unique name of the set of workpapers, such as ``2026Q3-1-0f3a9c``."""
        return f"{self.audit}-{self.stage}-{self.draw[:6]}"


def _redact(note: str) -> str:
    return redact_reason(note, form.LONGEST_NOTE)


def record_workpapers(
    conn: Connection,
    run: Run,
    workpapers: Workpapers,
    committed: Mapping[str, CommittedPopulation],
    samples: Mapping[str, Sample],
) -> None:
    """Store issued workpapers, so that returned workbooks can be compared with them.

    Args:
        conn: the state database, in a transaction.
        run: DAG id and run id of the run that issues the workpapers.
        workpapers: the workpapers as issued.
        committed: population id -> population in the commitment.
        samples: population id -> sample with the items of all stages.
    """
    issued = {
        "workpapers": _WORKPAPERS.dump_python(workpapers, mode="json"),
        "committed": {
            name: population.model_dump(mode="json") for name, population in committed.items()
        },
        "samples": {name: sample.model_dump(mode="json") for name, sample in samples.items()},
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


def all_issued(conn: Connection, audit: str | None = None) -> list[IssuedWorkpapers]:
    """Return the issued workpapers of an audited quarter, oldest first.

    If `audit` is None, return the issued workpapers of all quarters.
    """
    table = audit_workpapers.c
    query = select(audit_workpapers).order_by(table.issued_at, table.stage, table.draw_sha256)
    if audit is not None:
        query = query.where(table.audit == audit)
    return [_issued(dict(row)) for row in conn.execute(query).mappings()]


def stages_of(conn: Connection, draw: str) -> list[IssuedWorkpapers]:
    """Return the issued workpapers of a draw, in the order of their stages.

    The rows of these workpapers in the state database stay locked until the end of the transaction,
    so nothing changes while the caller evaluates them.

    Args:
        conn: the state database, in a transaction.
        draw: digest that identifies the draw.
    """
    table = audit_workpapers.c
    query = select(audit_workpapers).where(table.draw_sha256 == draw).order_by(table.stage)
    conn.execute(query.with_only_columns(table.stage).with_for_update())
    # Read again: a stage may have been issued while the statement waited for the lock.
    return [_issued(dict(row)) for row in conn.execute(query).mappings()]


def hand_in(
    conn: Connection, content: bytes, name: str, *, by: str, at: datetime
) -> IssuedWorkpapers:
    """Read the answers from a workbook that auditors hand in, and store them.

    A workbook with faults is refused with a list of all faults, and nothing is stored. Until the
    audit is concluded, the auditors may hand in another workbook, which replaces the earlier
    workbook.

    Args:
        conn: the state database, in a transaction.
        content: bytes of the workbook.
        name: file name of the workbook, for messages.
        by: person who hands in the workbook.
        at: time at which the workbook is handed in.

    Returns:
        The issued workpapers with the new answers.

    Raises:
        UsageError: the workbook has faults or does not belong to any issued workpapers, `by` is
            empty or contains a mobile or ID number, or the audit was already concluded.
    """
    if not by.strip():
        raise UsageError(
            "The person who hands in the workpapers is missing.", "Name the person with --by."
        )
    if has_personal_number(by):
        raise UsageError(
            "The name in --by contains a mobile or ID number.", "Write a name or a staff number."
        )
    draw, stage = draw_of(content, name)
    table = audit_workpapers.c
    stages = stages_of(conn, draw)
    issued = next(
        (issued_workpapers for issued_workpapers in stages if issued_workpapers.stage == stage),
        None,
    )
    if issued is None:
        raise UsageError(
            f"{name} belongs to no draw in the register of audits.",
            "Fill in the workpapers.xlsx of the bundle of sample_audit.",
        )
    reached = register.verdicts_of(conn, issued.audit)
    went_on = any(issued_workpapers.stage > stage for issued_workpapers in stages)
    if went_on or any(paper.population in reached for paper in issued.workpapers.papers):
        raise UsageError(
            f"The audit {issued.audit}, stage {stage}, was concluded on other workpapers.",
            "A conclusion cannot be changed. Retest overlooked items through their findings.",
        )
    returned = read(content, name, issued.workpapers, clean=_redact)  # a refusal lists all faults
    zone = ZoneInfo(issued.workpapers.timezone)
    if returned.performed_on and returned.performed_on > at.astimezone(zone).date():
        raise UsageError(
            f"{name} dates the work to {returned.performed_on}, which is in the future.",
            "Enter the date on which the work was done.",
        )
    handed_in = _handed_in(returned, hashlib.sha256(content).hexdigest(), by.strip(), at)
    handed_in = _with_predecessor(issued.handed_in, handed_in)
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


def _with_predecessor(before: ReturnedAnswers | None, now: ReturnedAnswers) -> ReturnedAnswers:
    """Return the answers of a new workbook, whose `replaced` lists the workbook that it replaces.

    If both are the same workbook, return the earlier answers unchanged.

    Args:
        before: answers of the workbook that was handed in earlier; None if no workbook was handed
            in earlier.
        now: answers of the new workbook.
    """
    if before is None:
        return now
    if before.file_sha256 == now.file_sha256:
        return before
    earlier_items = {(item.population, item.number): item for item in before.items}
    changed = sum(earlier_items.get((item.population, item.number)) != item for item in now.items)
    last = ReplacedReturn(
        file_sha256=before.file_sha256,
        returned_by=before.returned_by,
        returned_at=before.returned_at,
        changed=changed,
    )
    return now.model_copy(update={"replaced": (*before.replaced, last)})


def _handed_in(returned: Returned, digest: str, by: str, at: datetime) -> ReturnedAnswers:
    return ReturnedAnswers(
        file_sha256=digest,
        returned_by=by,
        returned_at=at,
        performed_by=returned.performed_by,
        performed_on=returned.performed_on,
        reviewed_by=returned.reviewed_by,
        remarks=tuple(remark.message for remark in returned.remarks),
        items=tuple(
            AnsweredItem(
                population=population, number=number, answers=dict(item.answers), note=item.note
            )
            for (population, number), item in returned.answers.items()
        ),
    )


def _issued(row: dict[str, Any]) -> IssuedWorkpapers:
    issued = row["issued"]
    return IssuedWorkpapers(
        workpapers=_WORKPAPERS.validate_python(issued["workpapers"]),
        committed={
            name: CommittedPopulation.model_validate(population)
            for name, population in issued["committed"].items()
        },
        samples={name: Sample.model_validate(sample) for name, sample in issued["samples"].items()},
        run=Run(row["dag_id"], row["run_id"]),
        issued_at=row["issued_at"],
        handed_in=ReturnedAnswers.model_validate(row["returned"]) if row["returned"] else None,
    )
