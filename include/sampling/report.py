"""The report of `sample_audit`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime

from include.evidence.model import Finding, Metric, failure_finding
from include.messages import Message, _
from include.reports.conclusion import Conclusion
from include.reports.model import (
    Block,
    Cell,
    Code,
    Fact,
    Paragraph,
    Section,
    Steps,
    must_be_zero,
    table_of,
    text_table,
)
from include.sampling import register
from include.sampling.commitment import Commitment, plans_table, quarter_fact, sealed_content
from include.sampling.drawing import DRAW, NOTHING_DRAWN, SampleSize
from include.sampling.freezing import COMMIT, FREEZE, POPULATIONS
from include.sampling.register import Refusal
from include.sampling.rules import CLAUSE, COMMITMENT_FILE, WORKPAPERS_FILE, AuditRules, sample_file
from include.sampling.samples import Cause, Seed, why
from include.sampling.seed_entry import SEED
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords


def conclude(run: RunContext[AuditRules], records: RunRecords) -> Conclusion:
    """Judge a run by the records of its steps.

    The committed frames are sealed as they are now: a changed one is evidence.
    """
    rules = run.rules
    with run.state.connect() as conn:
        seed = register.seed_of(conn, run.run)
        refused = register.refusals_of(conn, run.run)
        sealed = register.commitment_of(conn, run.run)
    store = run.services.store("evidence_store")
    content = sealed_content(store, sealed) if sealed else None
    commitment = Commitment.model_validate_json(content) if content else None
    folder = run.unsealed_folder
    committed = commitment.populations if commitment else ()
    frames = {frame.file: folder.sha256(frame.file) for frame in committed}
    quarter = records.result(POPULATIONS)
    populations = quarter.populations if quarter else []
    findings = _changed(commitment, frames) if commitment else []
    if sealed is not None and content != records.artifacts.get(COMMITMENT_FILE):
        findings.append(_edited())
    steps = {
        (POPULATIONS.name, ""): POPULATIONS.title,
        (COMMIT.name, ""): COMMIT.title,
        (DRAW.name, ""): DRAW.title,
        **({(SEED.name, ""): SEED.title} if commitment else {}),
        **{(FREEZE.name, population): _("The freezing") for population in populations},
    }
    findings += records.missing("sampling", CLAUSE, steps)
    draw = records.result(DRAW) or NOTHING_DRAWN
    samples = draw.drawn
    frozen = records.results(FREEZE)
    before = {
        population
        for population in populations
        if population in draw.drawn_by or (population in frozen and frozen[population].drawn_by)
    }
    empty = {population for population, result in frozen.items() if result.frame is None}
    without = len([name for name in populations if name not in {*samples, *before, *empty}])
    sections: list[Section] = []
    if commitment is not None and samples:
        sections.append(_drawn(commitment, rules, samples))
    if commitment is not None and (seed or refused):
        sections.append(_seed(commitment, rules, seed, refused))
    if commitment is not None and samples:
        sections.append(_check(commitment))
    if samples and seed:
        sections.append(_next(_return_by(run, seed.entered_at)))
    audit = quarter.audit if quarter else ""
    return records.conclude(
        _("Audit sample {audit}", audit=audit),
        _summary(audit, samples, without, len(before)),
        findings=findings,
        metrics=[
            Metric(
                name="populations_without_sample",
                value=without if populations else None,
                unit="1",
            )
        ],
        facts=_facts(commitment, seed, samples, without, len(before)),
        sections=sections,
        stored={file: digest for file, digest in frames.items() if digest is not None},
    )


def _edited() -> Finding:
    return failure_finding(
        code="sampling.commitment_changed",
        subject=COMMITMENT_FILE,
        message=_("The commitment is not the one that was sealed before the seed was known."),
        action=_("Find out by whom it was changed, and start a new run."),
        clause=CLAUSE,
    )


def _changed(commitment: Commitment, frames: Mapping[str, str | None]) -> list[Finding]:
    """Return a finding for each frame that differs from the commitment."""
    return [
        failure_finding(
            code="sampling.frame_changed",
            subject=frame.population,
            message=_("The frozen frame was changed or removed before the seal."),
            action=_("Find out by whom, and start a new run; the changed file is in the bundle."),
            clause=CLAUSE,
        )
        for frame in commitment.populations
        if frames.get(frame.file) != frame.sha256
    ]


def _summary(audit: str, samples: Mapping[str, SampleSize], without: int, before: int) -> Message:
    if not samples and before and not without:
        return _("All samples of {audit} were drawn before; they stand.", audit=audit)
    if not samples:
        return _("Nothing was drawn for the audit {audit}.", audit=audit)
    if without:
        return _(
            "{count} populations of {audit} have their sample; {without} have none.",
            count=len(samples),
            audit=audit,
            without=without,
        )
    return _(
        "Every population of {audit} that has items was sampled; the samples follow from a seed "
        "that nobody knew before.",
        audit=audit,
    )


def _facts(
    commitment: Commitment | None,
    seed: Seed | None,
    samples: Mapping[str, SampleSize],
    without: int,
    before: int,
) -> list[Fact]:
    facts = [
        Fact(
            label=_("Populations sampled"),
            value=len(samples) + before,
            status=must_be_zero(without),
        ),
        Fact(
            label=_("Items to look at"),
            value=sum(size.items for size in samples.values()) if samples else None,
            note=_("first stages"),
        ),
    ]
    if commitment is not None:
        facts.append(quarter_fact(commitment))
        facts.append(
            Fact(
                label=_("Items in the populations"),
                value=sum(frame.items for frame in commitment.populations),
            )
        )
    if seed is not None:
        facts.append(Fact(label=_("Seed published"), value=seed.published_at))
    return facts


def _drawn(commitment: Commitment, rules: AuditRules, samples: Mapping[str, SampleSize]) -> Section:
    return Section(
        heading=_("What was drawn"),
        blocks=[
            plans_table(commitment, rules),
            table_of(
                _("Samples"),
                [frame for frame in commitment.populations if frame.population in samples],
                [
                    (
                        _("Population"),
                        "text",
                        lambda frame: rules.population(frame.population).message,
                    ),
                    (
                        _("Items to look at"),
                        "number",
                        lambda frame: samples[frame.population].items,
                    ),
                    (
                        _("Drawn again and rejected"),
                        "number",
                        lambda frame: samples[frame.population].rejected,
                    ),
                    (_("File"), "code", lambda frame: sample_file(frame.population)),
                ],
            ),
            Paragraph(
                text=_(
                    "Where strata are planned, every one gives at least its share. The risk is "
                    "that of accepting a population whose deviations reach the tolerable rate."
                )
            ),
        ],
    )


def _seed(
    commitment: Commitment, rules: AuditRules, seed: Seed | None, refused: Sequence[Refusal]
) -> Section:
    named: Message | str = commitment.seed_source
    if rules.seed.source["en"] == commitment.seed_source:
        named = rules.seed.message
    blocks: list[Block] = [Paragraph(text=_("Named beforehand as: {source}", source=named))]
    if seed is not None:
        rows: list[tuple[Message, Cell]] = [
            (_("Seed"), seed.seed),
            (_("Read at"), seed.source),
            (_("Commitment sealed"), seed.commitment.sealed_at),
            (_("Published"), seed.published_at),
            (_("Entered"), seed.entered_at),
            (_("Entered by"), seed.entered_by),
        ]
        blocks.append(text_table(_("The seed"), (_("What"), _("Value")), rows))
    if refused:
        blocks.append(
            table_of(
                _("Seeds that were refused"),
                refused,
                [
                    (_("Entered by"), "code", lambda draw: draw.entered_by),
                    (_("Entered"), "datetime", lambda draw: draw.entered_at),
                    (_("Why"), "text", lambda draw: why(Cause(draw.cause))),
                ],
            )
        )
    return Section(heading=_("The seed"), blocks=blocks)


def _check(commitment: Commitment) -> Section:
    return Section(
        heading=_("How to check it"),
        blocks=[
            Paragraph(
                text=_(
                    "Whoever has this bundle draws the same samples again, with ParcelSeal or "
                    "with the script in docs/audit.md, which needs Python alone."
                )
            ),
            Code(
                caption=_("Digest of the commitment, which the auditor wrote down before the seed"),
                lines=[f"{hashlib.sha256(commitment.to_bytes()).hexdigest()}  {COMMITMENT_FILE}"],
            ),
            Code(
                caption=_("Digests of the frames, as they were committed to"),
                lines=[f"{frame.sha256}  {frame.file}" for frame in commitment.populations],
            ),
            Code(lines=["./parcelseal sampling verify BUNDLE"]),
        ],
    )


def _next(due: date) -> Section:
    return Section(
        heading=_("What happens next"),
        blocks=[
            Steps(
                items=[
                    _(
                        "The auditors fill in {file} of this bundle: every item, every question.",
                        file=WORKPAPERS_FILE,
                    ),
                    _("What cannot be found or is left open counts as a deviation."),
                    _(
                        "They hand it in by {day}: {command}. Later than that, conclude_audit is "
                        "red.",
                        day=due,
                        command=f"./parcelseal sampling return {WORKPAPERS_FILE} --by NAME",
                    ),
                    _(
                        "A population is accepted with no more deviations than the plan says; "
                        "nobody adds items afterwards."
                    ),
                ]
            )
        ],
    )


def _return_by(run: RunContext[AuditRules], drawn_at: datetime) -> date:
    return (drawn_at.astimezone(run.zone) + run.rules.return_within.span).date()
