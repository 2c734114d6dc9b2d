"""The step of `review_partners` that checks the obligations of every partner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime

from pydantic import BaseModel
from sqlalchemy import Connection, func, select

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult, record_step
from include.messages import Message, _
from include.notify import outbox
from include.notify.outbox import Run
from include.notify.tables import notice
from include.partners import history, reminders
from include.partners.history import Known, Review, abroad, countries
from include.partners.partner_status import (
    ObligationKind,
    PartnerObligations,
    State,
    Term,
    after,
    blocking_reason,
    bound_of,
    of,
)
from include.partners.register import Partner, Register, register_of
from include.partners.rules import (
    CLAUSE_BOUND,
    CLAUSE_REVIEW,
    CONTACT,
    REMINDER,
    STEP_CHECK,
    UNBOUND,
    UNREVIEWED,
    PartnerRules,
    shown,
)
from include.workflow.run_context import RunContext
from include.workflow.step import Step

_NEVER_FAILS = ("partners.name", "partners.nda_from_missing")
_CODES = {
    (ObligationKind.NDA, State.LAPSED): "partners.nda_lapsed",
    (ObligationKind.NDA, State.MISSING): "partners.nda_missing",
    (ObligationKind.NDA, State.NOT_YET): "partners.nda_not_begun",
    (ObligationKind.AGREEMENT, State.LAPSED): "partners.agreement_lapsed",
    (ObligationKind.AGREEMENT, State.MISSING): "partners.agreement_missing",
    (ObligationKind.REVIEW, State.LAPSED): "partners.review_lapsed",
    (ObligationKind.REVIEW, State.MISSING): "partners.review_missing",
    (ObligationKind.FAILED, State.LAPSED): "partners.review_failed",
    (ObligationKind.REOPENED, State.LAPSED): "partners.review_reopened",
}


class TermState(BaseModel):
    """A term of a partner on the day of the run.

    Attributes:
        what: kind of the obligation.
        begins: its first day, None without a beginning.
        until: its last day, None if the register does not name one.
        state: whether it is in force.
    """

    what: ObligationKind
    begins: date | None
    until: date | None
    state: State


class CheckedPartner(BaseModel):
    """A partner of the register.

    Attributes:
        partner: its number.
        name: of the company.
        tier: in the register.
        live: whether it has access.
        nda: the confidentiality agreement.
        agreement: the data-processing agreement.
        review: the security review.
        allowed: whether customer information may be shared with it.
        ends_in: days until its next term ends, if that is soon.
    """

    partner: str
    name: str
    tier: int | None
    live: bool
    nda: TermState | None
    agreement: TermState | None
    review: TermState | None
    allowed: bool
    ends_in: int | None


class OpenReview(BaseModel):
    """A review without a decision; `because` is empty if its turn came, `score` is exact."""

    id: int
    partner: str
    name: str
    because: str
    opened_at: datetime
    issued_at: datetime | None
    returned_at: datetime | None
    score: str | None
    passes: bool | None


class NamedSubProcessor(BaseModel):
    """A company that processes customer information for a partner."""

    partner: str
    name: str
    country: str
    what_for: str


class PartnerCheck(StepResult):
    """The obligations of every partner.

    Attributes:
        partners: sorted by number.
        reviews: that are open.
        sub_processors: of partners with access, by their last passed review.
        unnamed: rows of the register without a usable number.
        soon_days: days within which a term ends soon.
    """

    partners: list[CheckedPartner]
    reviews: list[OpenReview]
    sub_processors: list[NamedSubProcessor]
    unnamed: int
    soon_days: int


def check_partners(run: RunContext[PartnerRules], findings: StepFindings) -> PartnerCheck:
    """Check every partner's agreements and reviews, and queue each reminder once.

    One transaction queues the reminders and stores the record, so a repeated step queues nothing
    twice and reports the same.

    Raises:
        UsageError: the register cannot be read.
        ServiceError: its database cannot be reached.
    """
    register = register_of(run)
    with run.state.begin() as conn:
        known = history.known(conn)
        obligations = bound_of(run, known, register.partners)
        for partner in obligations:
            _terms(findings, partner, run.today)
            _abroad(findings, partner)
        _oddities(findings, register)
        _nobody(findings, register)
        _reviews(findings, run, known, register.partners)
        due = reminders.reached(run, obligations)
        outbox.queue(conn, reminders.notices(run, due), run.run, run.clock.now(), run.notices)
        _measure(findings, register, obligations, run.today)
        findings.measure("partners.reminders", _queued_by(conn, run.run), "1")
        check = PartnerCheck(
            partners=[_row(run, partner) for partner in obligations],
            reviews=[
                _review(run, reviews.open, register.partners)
                for reviews in known.values()
                if reviews.open
            ],
            sub_processors=_sub_processors(obligations),
            unnamed=register.unnamed,
            soon_days=run.rules.ladder[0],
        )
        record_step(conn, run.run.dag_id, run.run.run_id, findings.record(check), run.clock)
    return check


CHECK = Step(
    name=STEP_CHECK,
    title=_("The check"),
    clause=CLAUSE_BOUND,
    work=check_partners,
    result=PartnerCheck,
)


def _terms(findings: StepFindings, obligations: PartnerObligations, today: date) -> None:
    """Report the lapsed obligations of a partner with access."""
    if not obligations.partner.live:
        return
    for term in obligations.terms:
        reason = blocking_reason(term, today)
        if reason is None:
            continue
        agreed = term.what in (ObligationKind.NDA, ObligationKind.AGREEMENT)
        findings.find(
            _CODES[term.what, term.state(today)],
            Outcome.FAIL,
            _("{partner}: {what}", partner=obligations.partner.called, what=reason),
            _renew() if agreed else _review_it(obligations.partner.number),
            subject=obligations.partner.number,
            clause=CLAUSE_BOUND if agreed else CLAUSE_REVIEW,
        )


def _renew() -> Message:
    return _("Renew it, or take the partner's access away; sharing is refused until then.")


def _review_it(number: str) -> Message:
    return _(
        "Review the partner, or take its access away; sharing is refused until then. The review "
        "begins with ./parcelseal partners questionnaire {partner} --out FILE --by ID",
        partner=number,
    )


def _abroad(findings: StepFindings, obligations: PartnerObligations) -> None:
    """Report sub-processors outside of China; the other answers do not excuse them."""
    passed = obligations.known.passed
    if not obligations.partner.live or passed is None:
        return
    named = abroad(passed.sub_processors)
    if named:
        findings.warn(
            "partners.sub_processor_abroad",
            _(
                "{partner}: sub-processors that are not given as in China: {count} ({countries}).",
                partner=obligations.partner.called,
                count=len(named),
                countries=countries(named),
            ),
            _(
                "See whether customer information may be provided there (Personal Information "
                "Protection Law (2021-11-01) 38-40) and whether the partner's answers say so; "
                "else open the review again, which refuses sharing at once: ./parcelseal partners "
                "reopen {partner} --because TEXT --by ID",
                partner=obligations.partner.number,
            ),
            subject=obligations.partner.number,
        )


def _oddities(findings: StepFindings, register: Register) -> None:
    for oddity in register.oddities:
        partner = register.partners[oddity.partner]
        fails = partner.live and oddity.code not in _NEVER_FAILS
        findings.find(
            oddity.code,
            Outcome.FAIL if fails else Outcome.ATTENTION,
            _("{partner}: {what}", partner=partner.called, what=oddity.message),
            oddity.action,
            subject=oddity.partner,
        )
    if register.unnamed:
        findings.fail(
            "partners.without_number",
            _(
                "{count} rows of the register have no number by which a partner can be named.",
                count=register.unnamed,
            ),
            _("Give each a number without blanks, slashes and #; until then it counts as none."),
        )


def _nobody(findings: StepFindings, register: Register) -> None:
    """Report a register without partners, or without partners with access: it may be wrong."""
    if register.unnamed:
        return  # an unnamed partner may have access, and is a failure already
    if not register.partners:
        findings.fail(
            "partners.nobody",
            _("The register has no partner: whether partners are bound was not seen."),
            _(
                "Correct the query of partners.yaml or its rights; a company without partners "
                "leaves partners.yaml out."
            ),
        )
    elif not any(partner.live for partner in register.partners.values()):
        findings.warn(
            "partners.nobody_with_access",
            _("By the register, none of its {count} partners has access.",
              count=len(register.partners)),
            _("See whether that is so; only partners with access are looked at."),
        )  # fmt: skip


def _reviews(
    findings: StepFindings,
    run: RunContext[PartnerRules],
    known: Mapping[str, Known],
    partners: Mapping[str, Partner],
) -> None:
    """Report open reviews that wait for the partner or for a decision."""
    for number, reviews in known.items():
        review = reviews.open
        if review is None:
            continue
        if number not in partners:
            findings.warn(
                "partners.gone",
                _("Review {id} is open, and the register has no such partner.", id=review.id),
                _(
                    "End it: ./parcelseal partners decide {partner} --failed --by ID --reason TEXT",
                    partner=number,
                ),
                subject=number,
                clause=CLAUSE_REVIEW,
            )
            continue
        since = review.returned_at or (review.issued.issued_at if review.issued else None)
        if since is None or _within(run, since):
            continue
        if review.returned_at is None:
            code = "partners.questionnaire_out"
            message = _("{partner}: the questionnaire has been out since {day}.",
                        partner=partners[number].called, day=_day(run, since))  # fmt: skip
            action = _("Ask the partner for it, or decide that the review failed.")
        else:
            code = "partners.undecided"
            message = _("{partner}: the answers have been back since {day}, and nobody decided.",
                        partner=partners[number].called, day=_day(run, since))  # fmt: skip
            action = _(
                "Have somebody who did not hand them in decide: ./parcelseal partners decide "
                "{partner} --passed --by ID --reason TEXT (or --failed)",
                partner=number,
            )
        findings.find(
            code, Outcome.ATTENTION, message, action, subject=number, clause=CLAUSE_REVIEW
        )


def _within(run: RunContext[PartnerRules], since: datetime) -> bool:
    return run.today <= after(_day(run, since), run.rules.return_within)


def _day(run: RunContext[PartnerRules], moment: datetime) -> date:
    return moment.astimezone(run.zone).date()


def _measure(
    findings: StepFindings, register: Register, bound: Sequence[PartnerObligations], today: date
) -> None:
    """Measure the indicators of the controls. A register without rows is not measured, not zero.

    A partner without a usable number counts as unbound and unreviewed.
    """
    live = [obligations for obligations in bound if obligations.partner.live]
    unnamed = register.unnamed
    has_rows = bool(bound or unnamed)
    unbound = sum(not obligations.is_bound(today) for obligations in live) + unnamed
    unreviewed = sum(not obligations.is_reviewed(today) for obligations in live) + unnamed
    findings.measure(UNBOUND, unbound if has_rows else None, "1")
    findings.measure(UNREVIEWED, unreviewed if has_rows else None, "1")
    findings.measure("partners.registered", len(bound), "1")
    findings.measure("partners.live", len(live), "1")
    blocked = sum(not of(obligations, today).allowed for obligations in live)
    findings.measure("partners.live_blocked", blocked, "1")


def _queued_by(conn: Connection, run: Run) -> int:
    """Count the reminders that this run queued, also in an earlier try of the step."""
    table = notice.c
    query = select(func.count()).where(
        table.dag_id == run.dag_id,
        table.run_id == run.run_id,
        table.kind.in_((REMINDER, CONTACT)),
    )
    return int(conn.scalar(query) or 0)


def _row(run: RunContext[PartnerRules], obligations: PartnerObligations) -> CheckedPartner:
    partner, today = obligations.partner, run.today
    left = [
        (term.last_day - today).days
        for term in obligations.terms
        if term.state(today) is State.VALID and term.last_day
    ]
    ends_in = min(left, default=None)
    soon = ends_in is not None and ends_in <= run.rules.ladder[0]
    return CheckedPartner(
        partner=partner.number,
        name=partner.name,
        tier=partner.tier,
        live=partner.live,
        nda=_term_state(obligations.term(ObligationKind.NDA), today),
        agreement=_term_state(obligations.term(ObligationKind.AGREEMENT), today),
        review=_term_state(obligations.review, today),
        allowed=of(obligations, today).allowed,
        ends_in=ends_in if soon else None,
    )


def _term_state(term: Term | None, today: date) -> TermState | None:
    if term is None:
        return None
    is_dated = term.what not in (ObligationKind.FAILED, ObligationKind.REOPENED)
    return TermState(
        what=term.what,
        begins=term.first_day,
        until=term.last_day if is_dated else None,
        state=term.state(today),
    )


def _review(
    run: RunContext[PartnerRules], review: Review, partners: Mapping[str, Partner]
) -> OpenReview:
    score = review.score
    share = score.share if score else None
    partner = partners.get(review.partner) or Partner(review.partner)
    return OpenReview(
        id=review.id,
        partner=review.partner,
        name=partner.name,
        because=review.because,
        opened_at=review.opened_at.astimezone(run.zone),
        issued_at=_local(run, review.issued.issued_at if review.issued else None),
        returned_at=_local(run, review.returned_at),
        score=shown(share) if share is not None else None,
        passes=score.passes if score else None,
    )


def _local(run: RunContext[PartnerRules], at: datetime | None) -> datetime | None:
    return at.astimezone(run.zone) if at else None


def _sub_processors(partners: Sequence[PartnerObligations]) -> list[NamedSubProcessor]:
    return [
        NamedSubProcessor(partner=obligations.partner.number, **asdict(named))
        for obligations in partners
        if obligations.partner.live and obligations.known.passed is not None
        for named in obligations.known.passed.sub_processors
    ]
