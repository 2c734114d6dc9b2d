"""The report of `review_partners`."""

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
    TermState,
)
from include.partners.partner_status import ObligationKind, State
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
    Table,
    must_be_zero,
    table_of,
)
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

_NOBODY_SAYS = _("not known")
_NOT_YET = _("not yet")
_REVIEWS = {ObligationKind.FAILED: _("failed"), ObligationKind.REOPENED: _("opened again")}


def conclude(run: RunContext[PartnerRules], records: RunRecords) -> Conclusion:
    """Judge a run by the records of its steps."""
    del run
    steps = {(CHECK.name, ""): CHECK.title, (STEP_SEND, ""): SEND_TITLE}
    check = records.result(CHECK)
    return records.conclude(
        _("Partner reviews"),
        _summary(check, records.metrics),
        findings=records.missing("partners", CLAUSE_BOUND, steps),
        facts=_facts(records.metrics),
        sections=_sections(check) if check else (),
    )


def _figure(metrics: Sequence[Metric], name: str) -> int | None:
    values = [metric.value for metric in metrics if metric.name == name and not metric.subject]
    return int(values[0]) if values and values[0] is not None else None


def _summary(check: PartnerCheck | None, metrics: Sequence[Metric]) -> Message:
    blocked, live = _figure(metrics, "partners.live_blocked"), _figure(metrics, "partners.live")
    if check is None or live is None:
        return _("Nobody could see which partners are bound and reviewed.")
    if check.unnamed:
        return _(
            "{blocked} of {live} partners with access may be given nothing; {unnamed} rows of the "
            "register cannot be told apart.",
            blocked=blocked,
            live=live,
            unnamed=check.unnamed,
        )
    if blocked:
        return _(
            "{blocked} of {live} partners with access may be given nothing: an agreement has "
            "lapsed, or their review does not hold.",
            blocked=blocked,
            live=live,
        )
    if not check.partners:
        return _("The register has no partner: nobody could see whether partners are bound.")
    if not live:
        return _("By the register no partner has access: there was none to look at.")
    return _("All {live} partners with access are bound and reviewed.", live=live)


def _facts(metrics: Sequence[Metric]) -> list[Fact]:
    return [
        Fact(label=_("Partners with access"), value=_figure(metrics, "partners.live")),
        _counted(_("Without agreement in force"), _figure(metrics, UNBOUND)),
        _counted(_("Without review that holds"), _figure(metrics, UNREVIEWED)),
        Fact(label=_("Reminders queued by this run"), value=_figure(metrics, "partners.reminders")),
    ]


def _counted(label: Message, value: int | None) -> Fact:
    return Fact(label=label, value=value, status=must_be_zero(value), note=_("with access"))


def _sections(check: PartnerCheck) -> list[Section]:
    partners, reviews = sorted(check.partners, key=_urgency), check.reviews
    blocks: list[Block] = [_chart(partners, check.soon_days), _table(partners)]
    if not partners:
        blocks = [Paragraph(text=_("The register has no partner."))]
    sections = [Section(heading=_("Partners"), blocks=blocks)]
    if reviews:
        sections.append(Section(heading=_("Reviews that are open"), blocks=[_open(reviews)]))
    if check.sub_processors:
        consent = Paragraph(
            text=_(
                "As partners with access named them in the last review that passed. "
                "The company's consent to each, which the Personal Information "
                "Protection Law (2021-11-01) 21 asks for, is to be kept with the "
                "agreement; it is not recorded here."
            )
        )
        blocks = [consent, _others(check.sub_processors)]
        sections.append(Section(heading=_("Who processes for partners"), blocks=blocks))
    return sections


def _urgency(partner: CheckedPartner) -> tuple[bool, bool, bool, int]:
    """Sorts refused ones first, then what ends soon, then the rest; without access last."""
    ends_in = partner.ends_in if partner.live and partner.allowed else None
    return (not partner.live, partner.allowed, ends_in is None, ends_in or 0)


def _chart(partners: Sequence[CheckedPartner], days: int) -> BarChart:
    live = [partner for partner in partners if partner.live]
    blocked = sum(not partner.allowed for partner in live)
    soon = sum(partner.allowed and partner.ends_in is not None for partner in live)
    return BarChart(
        caption=_("Partners by what binds them"),
        category=_("State"),
        bars=[
            Bar(
                label=_("Sharing is refused"),
                value=blocked,
                status=must_be_zero(blocked),
            ),
            Bar(label=_("Something ends within {days} days", days=days), value=soon),
            Bar(label=_("In order for longer"), value=len(live) - blocked - soon),
            Bar(label=_("Without access"), value=len(partners) - len(live)),
        ],
    )


def _table(partners: Sequence[CheckedPartner]) -> Table:
    return table_of(
        _("What binds each partner"),
        partners,
        [
            (_("Partner"), "code", lambda partner: partner.partner),
            (_("Company"), "text", lambda partner: partner.name),
            (
                _("Tier"),
                "number",
                lambda partner: _NOBODY_SAYS if partner.tier is None else partner.tier,
            ),
            (_("Access"), "text", lambda partner: partner.live),
            (_("Confidentiality agreement"), "text", lambda partner: _term(partner.nda)),
            (_("Data-processing agreement"), "text", lambda partner: _term(partner.agreement)),
            (_("Security review"), "text", lambda partner: _term(partner.review)),
            (_("Sharing"), "text", _verdict),
        ],
    )


def _verdict(partner: CheckedPartner) -> Cell:
    if not partner.live:
        return _("no access")
    if not partner.allowed:
        return _("refused")
    match partner.ends_in:
        case None:
            return _("allowed")
        case 0:
            return _("allowed, ends today")
        case 1:
            return _("allowed, ends tomorrow")
        case days:
            return _("allowed, ends in {days} days", days=days)


def _term(term: TermState | None) -> Cell:
    if term is None:
        return _NOBODY_SAYS
    if term.what in _REVIEWS:
        return _REVIEWS[term.what]
    if term.until is None:
        return _NOBODY_SAYS
    if term.state is State.NOT_YET and term.begins is not None:
        return _("from {day} on", day=term.begins)
    day = term.until
    return _("until {day}", day=day) if term.state is State.VALID else _("lapsed, {day}", day=day)


def _open(reviews: Sequence[OpenReview]) -> Table:
    return table_of(
        _("Not decided on yet"),
        reviews,
        [
            (_("Review no."), "number", lambda review: review.id),
            (_("Partner"), "code", lambda review: review.partner),
            (_("Company"), "text", lambda review: review.name),
            (_("Why"), "text", lambda review: review.because or _("its turn came")),
            (_("Opened"), "datetime", lambda review: review.opened_at),
            (_("Questionnaire issued"), "datetime", lambda review: review.issued_at or _NOT_YET),
            (_("Answers back"), "datetime", lambda review: review.returned_at or _NOT_YET),
            (_("Score"), "text", _score),
        ],
    )


def _score(review: OpenReview) -> Cell:
    if review.score is None:
        return _NOT_YET
    if review.passes:
        return _("{score}, passes", score=review.score)
    return _("{score}, does not pass", score=review.score)


def _others(named: Sequence[NamedSubProcessor]) -> Table:
    return table_of(
        _("Sub-processors"),
        named,
        [
            (_("Partner"), "code", lambda company: company.partner),
            (_("Sub-processor"), "text", lambda company: company.name),
            (_("Country or region"), "text", lambda company: company.country),
            (_("What they process"), "text", lambda company: company.what_for),
        ],
    )
