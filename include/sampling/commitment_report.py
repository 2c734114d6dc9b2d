"""The report in the bundle of a commitment, sealed before the seed is known."""

from __future__ import annotations

from include.evidence.model import Metric, Outcome
from include.messages import _
from include.reports.conclusion import Conclusion
from include.reports.model import Fact, Paragraph, Section, Table, table_of
from include.sampling.commitment import Commitment
from include.sampling.names import COMMITMENT_FILE
from include.sampling.plans_table import plans_table, quarter_fact
from include.sampling.rules import AuditRules


def commitment_conclusion(commitment: Commitment, sha256: str, rules: AuditRules) -> Conclusion:
    """Return the conclusion of a commitment's bundle."""
    count = len(commitment.populations)
    return Conclusion(
        title=_("Commitment of the audit {audit}", audit=commitment.audit),
        summary=_(
            "{count} populations were frozen before the seed was known. What will be drawn from "
            "them follows from the seed alone.",
            count=count,
        ),
        outcome=Outcome.PASS,
        findings=[],
        metrics=[Metric(name="sampling.populations_committed", value=count, unit="1")],
        facts=[
            quarter_fact(commitment),
            Fact(label=_("Populations"), value=count),
            Fact(
                label=_("Items in the populations"),
                value=sum(frame.items for frame in commitment.populations),
            ),
        ],
        sections=[
            Section(
                heading=_("What was frozen"),
                blocks=[plans_table(commitment, rules), _frames(commitment)],
            ),
            Section(
                heading=_("What the seed will be"),
                blocks=[
                    Paragraph(text=_("The seed: {source}.", source=rules.seed.message)),
                    Paragraph(
                        text=_("SHA-256 of {file}: {sha256}", file=COMMITMENT_FILE, sha256=sha256)
                    ),
                ],
            ),
        ],
    )


def _frames(commitment: Commitment) -> Table:
    return table_of(
        _("Frozen frames"),
        commitment.populations,
        [
            (_("File"), "code", lambda population: population.file),
            (_("Items"), "number", lambda population: population.items),
            (_("SHA-256"), "code", lambda population: population.sha256),
        ],
    )
