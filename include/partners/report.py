"""Build the report of the workflow `review_partners`."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Metric
from include.messages import Message, _
from include.notify.sending import SEND_TITLE, STEP_SEND
from include.partners.check import (
    CHECK,
    CheckedPartner,
    NamedSubProcessor,
    OpenReview,
    PartnerCheck,
    TermRecord,
)
from include.partners.partner_status import ObligationKind, TermState
from include.partners.rules import CLAUSE_BOUND, UNBOUND, UNREVIEWED, PartnerRules
from include.reports.conclusion import Conclusion
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Fact,
    Paragraph,
    Section,
    SignatureLine,
    Table,
    must_be_zero,
    signature_section,
    table_of,
)
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

_SIGNATURES = signature_section(
    SignatureLine(role=_("Agreements and reviews checked by")),
    SignatureLine(role=_("Approved by")),
)
_NOT_KNOWN = _("not known")
_NOT_YET = _("not yet")
_REVIEW_RESULTS = {ObligationKind.FAILED: _("failed"), ObligationKind.REOPENED: _("reopened")}


def conclude(run: RunContext[PartnerRules], records: RunRecords) -> Conclusion:
    """Return the outcome and the report of a run, built from its step records."""
    del run
    steps = {(CHECK.name, ""): CHECK.title, (STEP_SEND, ""): SEND_TITLE}
    check = records.result(CHECK)
    return records.conclude(
        _("Partner reviews"),
        _summary(check, records.metrics),
        findings=records.missing("partners", CLAUSE_BOUND, steps),
        facts=_facts(records.metrics),
        sections=[*_sections(check), _SIGNATURES] if check else (),
    )


def _metric_value(metrics: Sequence[Metric], name: str) -> int | None:
    values = [metric.value for metric in metrics if metric.name == name and not metric.subject]
    return int(values[0]) if values and values[0] is not None else None


def _summary(check: PartnerCheck | None, metrics: Sequence[Metric]) -> Message:
    blocked, live = (
        _metric_value(metrics, "partners.live_blocked"),
        _metric_value(metrics, "partners.live"),
    )
    if check is None or live is None:
        return _("The agreements and reviews of partners could not be checked.")
    if check.unnamed:
        return _(
            "{blocked} of {live} partners with access must not receive customer information. "
            "{unnamed} entries of the partner register have no valid partner number.",
            blocked=blocked,
            live=live,
            unnamed=check.unnamed,
        )
    if blocked:
        return _(
            "{blocked} of {live} partners with access must not receive customer information: "
            "an agreement or the security review is missing or no longer valid.",
            blocked=blocked,
            live=live,
        )
    if not check.partners:
        return _("The partner register is empty, so no partner was checked.")
    if not live:
        return _(
            "According to the partner register, no partner has access to customer "
            "information, so no partner was checked."
        )
    return _(
        "All {live} partners with access have valid agreements and a valid security review.",
        live=live,
    )


def _facts(metrics: Sequence[Metric]) -> list[Fact]:
    return [
        Fact(label=_("Partners with access"), value=_metric_value(metrics, "partners.live")),
        _count_fact(_("Partners without valid agreements"), _metric_value(metrics, UNBOUND)),
        _count_fact(
            _("Partners without a valid security review"), _metric_value(metrics, UNREVIEWED)
        ),
        Fact(
            label=_("Reminders queued by this run"),
            value=_metric_value(metrics, "partners.reminders"),
        ),
    ]


def _count_fact(label: Message, value: int | None) -> Fact:
    return Fact(
        label=label,
        value=value,
        status=must_be_zero(value),
        note=_("only partners with access are counted"),
    )


def _sections(check: PartnerCheck) -> list[Section]:
    partners, reviews = sorted(check.partners, key=_urgency), check.reviews
    blocks: list[Block] = [_chart(partners, check.soon_days), _obligations_table(partners)]
    if not partners:
        blocks = [Paragraph(text=_("The partner register is empty."))]
    sections = [Section(heading=_("Partners"), blocks=blocks)]
    if reviews:
        sections.append(
            Section(heading=_("Open security reviews"), blocks=[_open_reviews_table(reviews)])
        )
    if check.sub_processors:
        consent = Paragraph(
            text=_(
                "Partners with access to customer information named these sub-processors in "
                "the last security review that they passed. The Personal Information "
                "Protection Law (2021-11-01), article 21, requires the company's consent to "
                "each sub-processor. Keep the consents with the agreement; ParcelSeal does not "
                "record them."
            )
        )
        blocks = [consent, _sub_processors_table(check.sub_processors)]
        sections.append(Section(heading=_("Sub-processors of partners"), blocks=blocks))
    return sections


def _urgency(partner: CheckedPartner) -> tuple[bool, bool, bool, int]:
    """Return a sort key that puts the most urgent partners first.

    First come partners that have access to customer information although sharing is blocked. Next
    come partners with an agreement or review that ends soon, by the number of days left. Then
    follow other partners that have access. Partners without access come last.
    """
    ends_in = partner.ends_in if partner.live and partner.allowed else None
    return (not partner.live, partner.allowed, ends_in is None, ends_in or 0)


def _chart(partners: Sequence[CheckedPartner], days: int) -> BarChart:
    live = [partner for partner in partners if partner.live]
    blocked = sum(not partner.allowed for partner in live)
    soon = sum(partner.allowed and partner.ends_in is not None for partner in live)
    return BarChart(
        caption=_("Partners by status of their agreements and security review"),
        category=_("State"),
        bars=[
            Bar(
                label=_("Sharing is blocked"),
                value=blocked,
                status=must_be_zero(blocked),
            ),
            Bar(
                label=_("An agreement or security review ends within {days} days", days=days),
                value=soon,
            ),
            Bar(
                label=_(
                    "Agreements and security review valid for more than {days} days", days=days
                ),
                value=len(live) - blocked - soon,
            ),
            Bar(label=_("Without access"), value=len(partners) - len(live)),
        ],
    )


def _obligations_table(partners: Sequence[CheckedPartner]) -> Table:
    return table_of(
        _("Agreements and security review of each partner"),
        partners,
        [
            (_("Partner number"), "code", lambda partner: partner.partner),
            (_("Company"), "text", lambda partner: partner.name),
            (
                _("Tier"),
                "number",
                lambda partner: _NOT_KNOWN if partner.tier is None else partner.tier,
            ),
            (_("Access"), "text", lambda partner: partner.live),
            (_("Confidentiality agreement"), "text", lambda partner: _term_cell(partner.nda)),
            (_("Data-processing agreement"), "text", lambda partner: _term_cell(partner.agreement)),
            (_("Security review"), "text", lambda partner: _term_cell(partner.review)),
            (_("Sharing"), "text", _sharing_cell),
        ],
    )


def _sharing_cell(partner: CheckedPartner) -> Cell:
    if not partner.live:
        return _("no access")
    if not partner.allowed:
        return _("not allowed")
    match partner.ends_in:
        case None:
            return _("allowed")
        case 0:
            return _("allowed until today")
        case 1:
            return _("allowed until tomorrow")
        case days:
            return _("allowed for {days} more days", days=days)


def _term_cell(term: TermRecord | None) -> Cell:
    if term is None:
        return _NOT_KNOWN
    if term.what in _REVIEW_RESULTS:
        return _REVIEW_RESULTS[term.what]
    if term.until is None:
        return _NOT_KNOWN
    if term.state is TermState.NOT_YET and term.begins is not None:
        return _("valid from {day}", day=term.begins)
    day = term.until
    return (
        _("valid until {day}", day=day)
        if term.state is TermState.VALID
        else _("ended on {day}", day=day)
    )


def _open_reviews_table(reviews: Sequence[OpenReview]) -> Table:
    return table_of(
        _("Security reviews without a decision"),
        reviews,
        [
            (_("Review no."), "number", lambda review: review.id),
            (_("Partner number"), "code", lambda review: review.partner),
            (_("Company"), "text", lambda review: review.name),
            (
                _("Reason for the review"),
                "text",
                lambda review: review.because or _("periodic review"),
            ),
            (_("Opened"), "datetime", lambda review: review.opened_at),
            (_("Questionnaire issued"), "datetime", lambda review: review.issued_at or _NOT_YET),
            (
                _("Questionnaire returned"),
                "datetime",
                lambda review: review.returned_at or _NOT_YET,
            ),
            (_("Score"), "text", _score_cell),
        ],
    )


def _score_cell(review: OpenReview) -> Cell:
    if review.score is None:
        return _NOT_YET
    if review.passes:
        return _("{score}, passes", score=review.score)
    return _("{score}, does not pass", score=review.score)


def _sub_processors_table(sub_processors: Sequence[NamedSubProcessor]) -> Table:
    return table_of(
        _("Sub-processors"),
        sub_processors,
        [
            (_("Partner number"), "code", lambda company: company.partner),
            (_("Sub-processor"), "text", lambda company: company.name),
            (_("Country or region"), "text", lambda company: company.country),
            (
                _("Information that the sub-processor processes"),
                "text",
                lambda company: company.what_for,
            ),
        ],
    )
