"""ObligationKind `review_partners` says to compliance staff."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Metric, Outcome
from include.evidence.step_findings import result_of
from include.messages import Message, _
from include.notify.sending import STEP_SEND, messages
from include.partners.check import (
    CheckedPartner,
    NamedSubProcessor,
    OpenReview,
    PartnerCheck,
    TermState,
)
from include.partners.partner_status import ObligationKind, State
from include.partners.rules import CLAUSE_BOUND, STEP_CHECK, UNBOUND, UNREVIEWED, PartnerRules
from include.reports.conclusion import Conclusion, worst
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Column,
    Fact,
    Paragraph,
    Section,
    Table,
)
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

_TITLE = _("Partner reviews")
_NOBODY_SAYS = _("not known")
_REVIEWS = {ObligationKind.FAILED: _("failed"), ObligationKind.REOPENED: _("opened again")}


def conclude(run: RunContext[PartnerRules], records: RunRecords) -> Conclusion:
    """Judge a run by the records of its steps."""
    steps = {STEP_CHECK: _("The check"), STEP_SEND: _("The sending")}
    findings = [*records.findings, *records.missing("partners", steps, CLAUSE_BOUND)]
    check = result_of(records.find(STEP_CHECK), PartnerCheck)
    sent = records.find(STEP_SEND)
    return Conclusion(
        title=_TITLE,
        summary=_summary(check, records.metrics),
        outcome=worst(records.records, findings),
        findings=findings,
        metrics=records.metrics,
        facts=_facts(records.metrics),
        sections=[*(_sections(check) if check else ()), *([messages(sent)] if sent else ())],
    )


def _figure(metrics: Sequence[Metric], name: str) -> int | None:
    value = next((one.value for one in metrics if one.name == name and not one.subject), None)
    return None if value is None else int(value)


def _summary(check: PartnerCheck | None, metrics: Sequence[Metric]) -> Message:
    blocked, live = (_figure(metrics, f"partners.{one}") for one in ("live_blocked", "live"))
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
    status = None if value is None else (Outcome.FAIL if value else Outcome.PASS)
    return Fact(label=label, value=value, status=status, note=_("with access"))


def _sections(check: PartnerCheck) -> list[Section]:
    partners, reviews = sorted(check.partners, key=_urgency), check.reviews
    blocks: list[Block] = [_chart(partners, check.soon_days), _table(partners)]
    if not partners:
        blocks = [Paragraph(text=_("The register has no partner."))]
    found = [Section(heading=_("Partners"), blocks=blocks)]
    if reviews:
        found.append(Section(heading=_("Reviews that are open"), blocks=[_open(reviews)]))
    if check.sub_processors:
        found.append(
            Section(
                heading=_("Who processes for partners"),
                blocks=[
                    Paragraph(
                        text=_(
                            "As partners with access named them in the last review that passed. "
                            "The company's consent to each, which the Personal Information "
                            "Protection Law (2021-11-01) 21 asks for, is to be kept with the "
                            "agreement; it is not recorded here."
                        )
                    ),
                    _others(check.sub_processors),
                ],
            )
        )
    return found


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
                status=Outcome.FAIL if blocked else Outcome.PASS,
            ),
            Bar(label=_("Something ends within {days} days", days=days), value=soon),
            Bar(label=_("In order for longer"), value=len(live) - blocked - soon),
            Bar(label=_("Without access"), value=len(partners) - len(live)),
        ],
    )


def _table(partners: Sequence[CheckedPartner]) -> Table:
    rows: list[list[Cell]] = [
        [
            partner.partner,
            partner.name,
            _NOBODY_SAYS if partner.tier is None else partner.tier,
            partner.live,
            *(_term(term) for term in (partner.nda, partner.agreement, partner.review)),
            _verdict(partner),
        ]
        for partner in partners
    ]
    return Table(
        caption=_("What binds each partner"),
        columns=[
            Column(label=_("Partner"), kind="code"),
            Column(label=_("Company")),
            Column(label=_("Tier"), kind="number"),
            Column(label=_("Access")),
            Column(label=_("Confidentiality agreement")),
            Column(label=_("Data-processing agreement")),
            Column(label=_("Security review")),
            Column(label=_("Sharing")),
        ],
        rows=rows,
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
    return Table(
        caption=_("Not decided on yet"),
        columns=[
            Column(label=_("Review no."), kind="number"),
            Column(label=_("Partner"), kind="code"),
            Column(label=_("Company")),
            Column(label=_("Why")),
            Column(label=_("Opened"), kind="datetime"),
            Column(label=_("Questionnaire issued"), kind="datetime"),
            Column(label=_("Answers back"), kind="datetime"),
            Column(label=_("Score")),
        ],
        rows=[
            [
                review.id,
                review.partner,
                review.name,
                review.because or _("its turn came"),
                review.opened_at,
                review.issued_at or _("not yet"),
                review.returned_at or _("not yet"),
                _score(review),
            ]
            for review in reviews
        ],
    )


def _score(review: OpenReview) -> Cell:
    if review.score is None:
        return _("not yet")
    if review.passes:
        return _("{score}, passes", score=review.score)
    return _("{score}, does not pass", score=review.score)


def _others(named: Sequence[NamedSubProcessor]) -> Table:
    return Table(
        caption=_("Sub-processors"),
        columns=[
            Column(label=_("Partner"), kind="code"),
            Column(label=_("Sub-processor")),
            Column(label=_("Country or region")),
            Column(label=_("What they process")),
        ],
        rows=[
            [company.partner, company.name, company.country, company.what_for] for company in named
        ],
    )
