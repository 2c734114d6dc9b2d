"""The report of the workflow `sample_audit`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime

from include.evidence.model import Finding, Metric, failure_finding
from include.messages import Message, _, verbatim
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
from include.sampling.quarter_texts import quarter_text
from include.sampling.register import SeedRefusal
from include.sampling.rules import CLAUSE, COMMITMENT_FILE, WORKPAPERS_FILE, AuditRules
from include.sampling.samples import Seed, SeedRefusalCause, refusal_message
from include.sampling.seed_entry import SEED
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords


def conclude(run: RunContext[AuditRules], records: RunRecords) -> Conclusion:
    """Return the conclusion and report of a run of `sample_audit` from its step records.

    The evidence bundle contains the sampling frames as they are at the end of the run. If a frame
    was changed after the commitment, the bundle contains the changed frame as evidence.
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
    findings = _frame_changes(commitment, frames, rules) if commitment else []
    if sealed is not None and content != records.artifacts.get(COMMITMENT_FILE):
        findings.append(_commitment_changed())
    steps = {
        (POPULATIONS.name, ""): POPULATIONS.title,
        (COMMIT.name, ""): COMMIT.title,
        (DRAW.name, ""): DRAW.title,
        **({(SEED.name, ""): SEED.title} if commitment else {}),
        **{
            (FREEZE.name, population): _("The freezing of the sampling frame")
            for population in populations
        },
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
        sections.append(_sample_section(commitment, rules, samples))
    if commitment is not None and (seed or refused):
        sections.append(_seed_section(commitment, rules, seed, refused))
    if commitment is not None and samples:
        sections.append(_verification_section(commitment))
    if samples and seed:
        sections.append(_next_steps_section(_return_by(run, seed.entered_at)))
    return records.conclude(
        _("Audit sample of the {quarter}", quarter=quarter_text(quarter.audit))
        if quarter
        else _("Audit sample"),
        _summary(quarter_text(quarter.audit), samples, without, len(before))
        if quarter
        else _("No sample was drawn."),
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


def _commitment_changed() -> Finding:
    return failure_finding(
        code="sampling.commitment_changed",
        subject=COMMITMENT_FILE,
        subject_title=_("Commitment"),
        message=_(
            "The commitment differs from the commitment that was sealed before the "
            "random seed was known."
        ),
        action=_("Find out who changed the commitment, and start a new run."),
        clause=CLAUSE,
    )


def _frame_changes(
    commitment: Commitment, frames: Mapping[str, str | None], rules: AuditRules
) -> list[Finding]:
    """Return a finding for each sampling frame that differs from the commitment or is missing.

    Args:
        commitment: the commitment of the run.
        frames: file name of each frame -> its current hex digest; None if the file is missing.
        rules: audit.yaml.
    """
    return [
        failure_finding(
            code="sampling.frame_changed",
            subject=frame.population,
            message=_(
                "The frozen sampling frame was changed or removed before the evidence bundle "
                "was sealed."
            ),
            action=_(
                "Find out who changed the sampling frame, and start a new run. The changed "
                "file is in the evidence bundle."
            ),
            clause=CLAUSE,
            subject_title=_title_of(frame.population, rules),
        )
        for frame in commitment.populations
        if frames.get(frame.file) != frame.sha256
    ]


def _title_of(name: str, rules: AuditRules) -> Message:
    """Return the title of a population, or its id if audit.yaml no longer has the population.

    Args:
        name: id of the population.
        rules: audit.yaml.
    """
    population = rules.find(name)
    return population.message if population else verbatim(name)


def _summary(
    quarter: Message, samples: Mapping[str, SampleSize], without: int, before: int
) -> Message:
    if not samples and before and not without:
        return _(
            "All samples of the {quarter} were drawn by earlier runs and remain valid.",
            quarter=quarter,
        )
    if not samples:
        return _("No sample was drawn for the {quarter}.", quarter=quarter)
    if without:
        return _(
            "Populations of the {quarter} with a sample: {count}; without a sample: {without}.",
            count=len(samples),
            quarter=quarter,
            without=without,
        )
    return _(
        "Every population with items in the {quarter} has a sample. A random seed that was "
        "published after the commitment was sealed determined the samples.",
        quarter=quarter,
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
            label=_("Sample items to test"),
            value=sum(size.items for size in samples.values()) if samples else None,
            note=_("in the first stage")
            if commitment and any(frame.plan.stages > 1 for frame in commitment.populations)
            else None,
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
        facts.append(Fact(label=_("Random seed published at"), value=seed.published_at))
    return facts


def _sample_section(
    commitment: Commitment, rules: AuditRules, samples: Mapping[str, SampleSize]
) -> Section:
    return Section(
        heading=_("Result of the draw"),
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
                        _("Sample items to test"),
                        "number",
                        lambda frame: samples[frame.population].items,
                    ),
                    (
                        _("Duplicate draws rejected"),
                        "number",
                        lambda frame: samples[frame.population].rejected,
                    ),
                ],
            ),
            Paragraph(
                text=_(
                    "If a population has strata, each stratum contributes at least its share "
                    "of the sample. The risk is the probability of accepting a population "
                    "whose deviation rate reaches the tolerable rate."
                )
            ),
        ],
    )


def _seed_section(
    commitment: Commitment, rules: AuditRules, seed: Seed | None, refused: Sequence[SeedRefusal]
) -> Section:
    source: Message | str = commitment.seed_source
    if rules.seed.source["en"] == commitment.seed_source:
        source = rules.seed.message
    blocks: list[Block] = [
        Paragraph(text=_("Source named in the commitment: {source}", source=source))
    ]
    if seed is not None:
        rows: list[tuple[Message, Cell]] = [
            (_("Random seed"), seed.seed),
            (
                _("Place of publication"),
                _("none: a stand-in value for the sample company")
                if seed.is_stand_in
                else seed.source,
            ),
            (_("Commitment sealed at"), seed.commitment.sealed_at),
            (_("Published at"), seed.published_at),
            (_("Entered"), seed.entered_at),
            (_("Entered by"), seed.entered_by),
        ]
        blocks.append(text_table(_("The random seed"), (_("Detail"), _("Content")), rows))
    if refused:
        blocks.append(
            table_of(
                _("Refused random seeds"),
                refused,
                [
                    (_("Entered by"), "code", lambda draw: draw.entered_by),
                    (_("Entered"), "datetime", lambda draw: draw.entered_at),
                    (
                        _("Cause"),
                        "text",
                        lambda draw: refusal_message(SeedRefusalCause(draw.cause)),
                    ),
                ],
            )
        )
    return Section(heading=_("The random seed"), blocks=blocks)


def _verification_section(commitment: Commitment) -> Section:
    return Section(
        heading=_("How to verify the draw"),
        blocks=[
            Paragraph(
                text=_(
                    "This evidence bundle is sufficient to repeat the draw, with ParcelSeal or "
                    "with the Python script in the documentation (“Verify a sample”)."
                )
            ),
            Code(
                caption=_(
                    "Digest of the commitment, which the auditor noted before entering "
                    "the random seed"
                ),
                lines=[hashlib.sha256(commitment.to_bytes()).hexdigest()],
            ),
            Code(
                caption=_("For engineers: digests of the sampling frames in the commitment"),
                lines=[f"{frame.sha256}  {frame.file}" for frame in commitment.populations],
            ),
            Code(
                caption=_("For engineers: verification of the draw"),
                lines=["./parcelseal sampling verify BUNDLE"],
            ),
        ],
    )


def _next_steps_section(due: date) -> Section:
    return Section(
        heading=_("Next steps"),
        blocks=[
            Steps(
                items=[
                    _(
                        "The auditors fill in the workpapers, the Excel workbook in this "
                        "evidence bundle: every item, every question.",
                    ),
                    _(
                        "An item that cannot be found, or a question without an answer, counts "
                        "as a deviation."
                    ),
                    _(
                        "The auditors hand the completed workpapers to the data engineers by "
                        "{day}. After that date, the workflow “Audit conclusion” reports the "
                        "workpapers as overdue and fails.",
                        day=due,
                    ),
                    _(
                        "A population is accepted if the number of deviations does not exceed "
                        "the number that its sampling plan allows. No sample items may be "
                        "added after the draw."
                    ),
                ]
            ),
            Code(
                caption=_("For engineers: import of the completed workpapers"),
                lines=[f"./parcelseal sampling return {WORKPAPERS_FILE} --by NAME"],
            ),
        ],
    )


def _return_by(run: RunContext[AuditRules], drawn_at: datetime) -> date:
    return (drawn_at.astimezone(run.zone) + run.rules.return_within.span).date()
