"""What `sample_audit` says: of its commitment before the seed, and of what was drawn by it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.messages import Message, _
from include.policy.period import Period
from include.reports.conclusion import Conclusion, by_step, missing_records, nothing_done, worst
from include.reports.model import (
    Cell,
    Code,
    Column,
    Fact,
    Paragraph,
    Section,
    Steps,
    Table,
    table_of,
)
from include.sampling import seeds
from include.sampling.commitment import Commitment
from include.sampling.names import (
    CLAUSE,
    COMMITMENT_FILE,
    STEP_AUDIT,
    STEP_COMMIT,
    STEP_DRAW,
    STEP_FREEZE,
    STEP_SEED,
    WORKPAPERS_FILE,
    sample_file,
)
from include.sampling.plans_table import plans_table, quarter_fact
from include.sampling.register import Refusal
from include.sampling.rules import AuditRules
from include.sampling.seeds import Seed


def conclude(
    records: Sequence[StepRecord],
    *,
    rules: AuditRules,
    made: Commitment | None,
    seed: Seed | None,
    refused: Sequence[Refusal],
    frames: Mapping[str, str | None],
    timezone: str,
    edited: bool = False,
) -> Conclusion:
    """Judge a run of `sample_audit` from what its steps left.

    Args:
        records: of the run.
        rules: audit.yaml.
        made: what it committed to; None when it came not so far.
        seed: that was taken; None when none was.
        refused: seeds that were not.
        frames: digests of the committed frames as they lie in the bundle now, by file; None of one
            that is gone.
        edited: whether the run's commitment is not the one that was sealed before the seed.
        timezone: of the days that people read.
    """
    found = by_step(records)
    findings = [finding for record in records for finding in record.findings]
    findings += _changed(made, frames) if made else []
    findings += [_edited()] if edited else []
    drawn = found.get((STEP_DRAW, ""))
    complete = drawn is not None and "drawn" in drawn.data
    begun = found.get((STEP_AUDIT, ""))
    asked = begun.data.get("populations", []) if begun else []
    steps = {
        (STEP_AUDIT, ""): _("The beginning"),
        (STEP_COMMIT, ""): _("The commitment"),
        (STEP_DRAW, ""): _("The draw"),
        **({(STEP_SEED, ""): _("The seed")} if made else {}),
        **{(STEP_FREEZE, population): _("The freezing") for population in asked},
    }
    findings += missing_records(records, steps, "sampling", CLAUSE)
    told: dict[str, dict[str, int]] = drawn.data["drawn"] if drawn and complete else {}
    lost = drawn.data.get("drawn_by", {}) if drawn else {}
    settled = [
        one
        for one in asked
        if one in lost
        or (
            (record := found.get((STEP_FREEZE, one))) is not None
            and (record.data.get("items") == 0 or "drawn_by" in record.data)
        )
    ]
    before = sum(one in lost or "drawn_by" in found[STEP_FREEZE, one].data for one in settled)
    without = len([one for one in asked if one not in told and one not in settled])
    audit = str(begun.data.get("audit", "")) if begun else ""
    return Conclusion(
        title=_("Audit sample {audit}", audit=audit),
        summary=_summary(audit, told, without, before),
        outcome=worst(records, findings),
        findings=findings,
        metrics=[
            *(metric for record in records for metric in record.metrics),
            Metric(name="populations_without_sample", value=without if asked else None, unit="1"),
        ],
        facts=_facts(made, seed, told, without, before),
        sections=[
            *([_drawn(made, rules, told)] if made and told else []),
            *([_seed(made, rules, seed, refused)] if made and (seed or refused) else []),
            *([_check(made)] if made and told else []),
            *(
                [_next(due_on(seed.entered_at, rules.return_within, timezone))]
                if told and seed
                else []
            ),
        ],
        ahead={file: digest for file, digest in frames.items() if digest is not None},
    )


def nothing_to_audit(records: Sequence[StepRecord]) -> Conclusion:
    """Say that the pack has no audit.yaml: nothing was done, and nothing is shown."""
    summary = _("The policy pack has no audit.yaml: nothing is audited by samples.")
    return nothing_done(_("Audit sample {audit}", audit=""), summary, records)


def _edited() -> Finding:
    return Finding(
        code="sampling.commitment_changed",
        severity=Outcome.FAIL,
        subject=COMMITMENT_FILE,
        message=_("The commitment is not the one that was sealed before the seed was known."),
        action=_("Find out by whom it was changed, and start a new run."),
        clause=CLAUSE,
    )


def _changed(made: Commitment, frames: Mapping[str, str | None]) -> list[Finding]:
    """Frames that are not what was committed to; they are sealed as they are."""
    return [
        Finding(
            code="sampling.frame_changed",
            severity=Outcome.FAIL,
            subject=one.population,
            message=_("The frozen frame was changed or removed before the seal."),
            action=_("Find out by whom, and start a new run; the changed file is in the bundle."),
            clause=CLAUSE,
        )
        for one in made.populations
        if frames.get(one.file) != one.sha256
    ]


def _summary(
    audit: str, told: Mapping[str, Mapping[str, int]], without: int, before: int
) -> Message:
    if not told and before and not without:
        return _("All samples of {audit} were drawn before; they stand.", audit=audit)
    if not told:
        return _("Nothing was drawn for the audit {audit}.", audit=audit)
    if without:
        return _(
            "{count} populations of {audit} have their sample; {without} have none.",
            count=len(told),
            audit=audit,
            without=without,
        )
    return _(
        "Every population of {audit} that has items was sampled; the samples follow from a seed "
        "that nobody knew before.",
        audit=audit,
    )


def _facts(
    made: Commitment | None,
    seed: Seed | None,
    told: Mapping[str, Mapping[str, int]],
    without: int,
    before: int,
) -> list[Fact]:
    facts = [
        Fact(
            label=_("Populations sampled"),
            value=len(told) + before,
            status=Outcome.FAIL if without else Outcome.PASS,
        ),
        Fact(
            label=_("Items to look at"),
            value=sum(one["items"] for one in told.values()) if told else None,
            note=_("first stages"),
        ),
    ]
    if made is not None:
        facts.append(quarter_fact(made))
        facts.append(
            Fact(
                label=_("Items in the populations"),
                value=sum(one.items for one in made.populations),
            )
        )
    if seed is not None:
        facts.append(Fact(label=_("Seed published"), value=seed.published_at))
    return facts


def _drawn(made: Commitment, rules: AuditRules, told: Mapping[str, Mapping[str, int]]) -> Section:
    return Section(
        heading=_("What was drawn"),
        blocks=[
            plans_table(made, rules),
            table_of(
                _("Samples"),
                [frame for frame in made.populations if frame.population in told],
                [
                    (
                        _("Population"),
                        "text",
                        lambda frame: rules.population(frame.population).message,
                    ),
                    (
                        _("Items to look at"),
                        "number",
                        lambda frame: told[frame.population]["items"],
                    ),
                    (
                        _("Drawn again and rejected"),
                        "number",
                        lambda frame: told[frame.population]["rejected"],
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
    made: Commitment, rules: AuditRules, seed: Seed | None, refused: Sequence[Refusal]
) -> Section:
    rows: list[list[Cell]] = []
    if seed is not None:
        rows = [
            [_("Seed"), seed.seed],
            [_("Read at"), seed.source],
            [_("Commitment sealed"), seed.commitment.sealed_at],
            [_("Published"), seed.published_at],
            [_("Entered"), seed.entered_at],
            [_("Entered by"), seed.entered_by],
        ]
    named: Message | str = made.seed_source
    if rules.seed.source["en"] == made.seed_source:
        named = rules.seed.message
    blocks: list[Table | Paragraph] = [
        Paragraph(text=_("Named beforehand as: {source}", source=named))
    ]
    if rows:
        columns = [Column(label=_("What")), Column(label=_("Value"))]
        blocks.append(Table(caption=_("The seed"), columns=columns, rows=rows))
    if refused:
        blocks.append(
            table_of(
                _("Seeds that were refused"),
                refused,
                [
                    (_("Entered by"), "code", lambda draw: draw.entered_by),
                    (_("Entered"), "datetime", lambda draw: draw.entered_at),
                    (_("Why"), "text", lambda draw: seeds.why(seeds.Cause(draw.cause))),
                ],
            )
        )
    return Section(heading=_("The seed"), blocks=list(blocks))


def _check(made: Commitment) -> Section:
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
                lines=[f"{hashlib.sha256(made.to_bytes()).hexdigest()}  {COMMITMENT_FILE}"],
            ),
            Code(
                caption=_("Digests of the frames, as they were committed to"),
                lines=[f"{one.sha256}  {one.file}" for one in made.populations],
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


def due_on(start: datetime, period: Period, timezone: str) -> date:
    """Return the day by which something is due, counted as `conclude_audit` does: a month, 30 days.

    Args:
        start: the moment from which on.
        period: of audit.yaml.
        timezone: of the pack.
    """
    span = timedelta(days=period.months * 30 + period.days, seconds=period.seconds)
    return (start.astimezone(ZoneInfo(timezone)) + span).date()
