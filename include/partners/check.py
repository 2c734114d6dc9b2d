"""The step of the workflow `review_partners` that checks the obligations of every partner.

The obligations are the confidentiality agreement, the data-processing agreement and the security
review.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from pydantic import BaseModel
from sqlalchemy import Connection, func, select

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult, record_step
from include.messages import Message, _
from include.notify import outbox
from include.notify.outbox import Run
from include.notify.tables import notification
from include.partners import history, reminders
from include.partners.history import Review, ReviewHistory, country_list, outside_china
from include.partners.partner_status import (
    ObligationKind,
    PartnerObligations,
    Term,
    TermState,
    add_period,
    blocking_reason,
    obligations_of,
    sharing_status,
)
from include.partners.register import Partner, Register, load_register
from include.partners.rules import (
    CLAUSE_BOUND,
    CLAUSE_REVIEW,
    CONTACT,
    REMINDER,
    STEP_CHECK,
    UNBOUND,
    UNREVIEWED,
    PartnerRules,
    format_score,
)
from include.workflow.run_context import RunContext
from include.workflow.step import Step

_NEVER_FAILS = ("partners.name", "partners.nda_from_missing")
_AGREEMENT_CODES = {
    (ObligationKind.NDA, TermState.LAPSED): "partners.nda_lapsed",
    (ObligationKind.NDA, TermState.MISSING): "partners.nda_missing",
    (ObligationKind.NDA, TermState.NOT_YET): "partners.nda_not_begun",
    (ObligationKind.AGREEMENT, TermState.LAPSED): "partners.agreement_lapsed",
    (ObligationKind.AGREEMENT, TermState.MISSING): "partners.agreement_missing",
}
_REVIEW_CODES = {
    (ObligationKind.REVIEW, TermState.LAPSED): "partners.review_lapsed",
    (ObligationKind.REVIEW, TermState.MISSING): "partners.review_missing",
    (ObligationKind.FAILED, TermState.LAPSED): "partners.review_failed",
    (ObligationKind.REOPENED, TermState.LAPSED): "partners.review_reopened",
}


class TermRecord(BaseModel):
    """An agreement or security review of a partner, as the step record stores it.

    Attributes:
        what: kind of the obligation.
        begins: first day on which the agreement or review is in force; None if unknown.
        until: last day on which the agreement or review is in force; None if unknown, or if the
            review failed or was reopened.
        state: state on the day of the run, for example ``valid`` or ``lapsed``.
    """

    what: ObligationKind
    begins: date | None
    until: date | None
    state: TermState


class CheckedPartner(BaseModel):
    """A partner of the partner register, with its obligations on the day of the run.

    Attributes:
        partner: number of the partner.
        name: name of the partner's company.
        tier: tier of the partner in the register; None if partners.yaml does not define the tier.
        live: whether the partner has access to customer information.
        nda: confidentiality agreement; None if the register has several rows for the partner.
        agreement: data-processing agreement; None if the register has several rows for the partner.
        review: security review; None if the register has several rows for the partner.
        allowed: whether customer information may be shared with the partner.
        ends_in: number of days until the first of the agreements and the review that are in force
            ends; None if this is more than `PartnerCheck.soon_days` days, or if none of them is in
            force.
    """

    partner: str
    name: str
    tier: int | None
    live: bool
    nda: TermRecord | None
    agreement: TermRecord | None
    review: TermRecord | None
    allowed: bool
    ends_in: int | None


class OpenReview(BaseModel):
    """A security review of a partner that is not decided yet.

    Attributes:
        id: number of the review.
        partner: number of the partner.
        name: name of the partner's company.
        because: reason for which the review was reopened; empty for a periodic review.
        opened_at: time at which the review was opened.
        issued_at: time at which the questionnaire was issued; None if it was not issued yet.
        returned_at: time at which the questionnaire was returned; None if it was not returned yet.
        score: score of the answers in percent, as text, such as ``85``; None if the review has no
            answers, or if no question applies.
        passes: whether the answers are sufficient for the review to pass; None if the review has no
            answers.
    """

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
    """A company that processes customer information for a partner, as the partner stated.

    Attributes:
        partner: number of the partner.
        name: name of the sub-processor.
        country: country or region of the sub-processor.
        what_for: description of what the sub-processor processes for the partner.
    """

    partner: str
    name: str
    country: str
    what_for: str


class PartnerCheck(StepResult):
    """The result of checking the obligations of every partner.

    Attributes:
        partners: partners sorted by number.
        reviews: security reviews that are not decided yet.
        sub_processors: sub-processors of the partners that have access to customer information, as
            each partner stated them in its latest security review that passed.
        unnamed: number of rows of the partner register without a usable partner number.
        soon_days: number of days within which an agreement or review counts as ending soon in the
            report.
    """

    partners: list[CheckedPartner]
    reviews: list[OpenReview]
    sub_processors: list[NamedSubProcessor]
    unnamed: int
    soon_days: int


def check_partners(run: RunContext[PartnerRules], findings: StepFindings) -> PartnerCheck:
    """Check every partner's agreements and reviews, and queue the reminders that are due.

    One transaction queues the reminders and stores the step record. If the step is repeated, it
    therefore queues no reminder a second time, and its record is the same.

    Args:
        run: context of the run.
        findings: findings of the step.

    Raises:
        UsageError: the partner register cannot be read.
        ServiceError: the database of the partner register cannot be reached.
    """
    register = load_register(run)
    findings.subject_titles |= {
        number: partner.title for number, partner in register.partners.items()
    }
    with run.state.begin() as conn:
        histories = history.load_histories(conn)
        all_obligations = obligations_of(run, histories, register.partners)
        for obligations in all_obligations:
            _report_terms(findings, obligations, run.today)
            _report_sub_processors_abroad(findings, obligations)
        _report_register_faults(findings, register)
        _report_empty_register(findings, register)
        _report_waiting_reviews(findings, run, histories, register.partners)
        due = reminders.due_reminders(run, all_obligations)
        outbox.queue_notifications(
            conn, reminders.notifications(run, due), run.run, run.clock.now(), run.notices
        )
        _measure(findings, register, all_obligations, run.today)
        findings.measure("partners.reminders", _count_queued(conn, run.run), "1")
        check = PartnerCheck(
            partners=[_checked_partner(run, obligations) for obligations in all_obligations],
            reviews=[
                _open_review(run, reviews.open, register.partners)
                for reviews in histories.values()
                if reviews.open
            ],
            sub_processors=_sub_processors(all_obligations),
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


def _report_terms(findings: StepFindings, obligations: PartnerObligations, today: date) -> None:
    """Report a partner's agreements and reviews that are not in force.

    Nothing is reported for a partner without access to customer information.
    """
    if not obligations.partner.live:
        return
    for term in obligations.terms:
        reason = blocking_reason(term, today)
        if reason is None:
            continue
        number = obligations.partner.number
        if term.kind in (ObligationKind.NDA, ObligationKind.AGREEMENT):
            findings.find(
                _AGREEMENT_CODES[term.kind, term.state(today)],
                Outcome.FAIL,
                reason,
                _RENEW,
                subject=number,
                clause=CLAUSE_BOUND,
            )
        else:
            findings.find(
                _REVIEW_CODES[term.kind, term.state(today)],
                Outcome.FAIL,
                reason,
                _REVIEW,
                subject=number,
                clause=CLAUSE_REVIEW,
                for_engineers=_issue_command(number),
            )


_RENEW = _(
    "Conclude or renew the agreement, or withdraw the partner's access. Do not share customer "
    "information with the partner until then."
)
_REVIEW = _(
    "Review the partner, or withdraw its access. Do not share customer information with the "
    "partner until then."
)


def _issue_command(number: str) -> Message:
    return _(
        "`./parcelseal partners questionnaire {partner} --out FILE --by ID` writes the "
        "questionnaire of the review.",
        partner=number,
    )


def _decide_command(number: str) -> Message:
    return _(
        "`./parcelseal partners decide {partner} --passed --by ID --reason TEXT` records the "
        "decision; with `--failed`, that the review failed.",
        partner=number,
    )


def _report_sub_processors_abroad(findings: StepFindings, obligations: PartnerObligations) -> None:
    """Report those sub-processors of a partner that are outside of China.

    They are reported even if all the partner's answers in the questionnaire are as expected.
    Nothing is reported for a partner without access to customer information.

    Args:
        findings: findings of the step.
        obligations: the partner, its obligations and its reviews.
    """
    passed = obligations.reviews.passed
    if not obligations.partner.live or passed is None:
        return
    foreign_companies = outside_china(passed.sub_processors)
    if foreign_companies:
        findings.warn(
            "partners.sub_processor_abroad",
            _(
                "In the questionnaire, {count} sub-processors have a country or region other than "
                "mainland China ({countries}).",
                count=len(foreign_companies),
                countries=country_list(foreign_companies),
            ),
            _(
                "Check whether the partner may provide customer information to these countries "
                "or regions (Personal Information Protection Law (2021-11-01), articles 38 to "
                "40), and whether its other answers in the questionnaire agree with this list. "
                "If not, have the security review reopened, which blocks sharing at once."
            ),
            subject=obligations.partner.number,
            for_engineers=_(
                "`./parcelseal partners reopen {partner} --because TEXT --by ID` reopens the "
                "review.",
                partner=obligations.partner.number,
            ),
        )


def _report_register_faults(findings: StepFindings, register: Register) -> None:
    for fault in register.faults:
        partner = register.partners[fault.partner]
        fails = partner.live and fault.code not in _NEVER_FAILS
        findings.find(
            fault.code,
            Outcome.FAIL if fails else Outcome.ATTENTION,
            fault.message,
            fault.action,
            subject=fault.partner,
            for_engineers=fault.for_engineers,
        )
    if register.unnamed:
        findings.fail(
            "partners.without_number",
            _(
                "{count} entries of the partner register have no valid partner number.",
                count=register.unnamed,
            ),
            _(
                "Give each of these entries of the partner register a partner number that "
                "contains no space, slash or #. Until then, each of these entries counts as a "
                "partner without agreements and without a security review."
            ),
        )


def _report_empty_register(findings: StepFindings, register: Register) -> None:
    """Report if the partner register has no partners, or if no partner has access to data.

    In both cases the query that reads the register may be wrong.
    """
    if register.unnamed:
        return  # a row without a number may be a partner with access, and already fails the step
    if not register.partners:
        findings.fail(
            "partners.nobody",
            _("The partner register is empty, so no partner was checked."),
            _(
                "Correct the query of the partner register, or the rights of the login that "
                "runs it. If the company has no partners, remove the partner rules from the "
                "policy pack."
            ),
            for_engineers=_("The query of the register is in `partners.yaml`."),
        )
    elif not any(partner.live for partner in register.partners.values()):
        findings.warn(
            "partners.nobody_with_access",
            _(
                "According to the partner register, none of the {count} partners has access to "
                "customer information.",
                count=len(register.partners),
            ),
            _(
                "Check whether it is correct that no partner has access. Only partners with "
                "access to customer information are checked."
            ),
        )


def _report_waiting_reviews(
    findings: StepFindings,
    run: RunContext[PartnerRules],
    histories: Mapping[str, ReviewHistory],
    partners: Mapping[str, Partner],
) -> None:
    """Report open reviews that have waited too long for the partner's answers or for a decision.

    If the partner of an open review is no longer in the partner register, the review is always
    reported.

    Args:
        findings: findings of the step.
        run: context of the run.
        histories: security reviews of each partner, by partner number.
        partners: partners of the partner register, by number.
    """
    for number, reviews in histories.items():
        review = reviews.open
        if review is None:
            continue
        if number not in partners:
            findings.warn(
                "partners.gone",
                _(
                    "Security review {id} is open, but its partner is not in the partner register.",
                    id=review.id,
                ),
                _("End the security review with the decision that it failed."),
                subject=number,
                clause=CLAUSE_REVIEW,
                for_engineers=_decide_command(number),
            )
            continue
        since = review.returned_at or (review.issued.issued_at if review.issued else None)
        if since is None or _is_in_time(run, since):
            continue
        if review.returned_at is None:
            code = "partners.questionnaire_out"
            message = _(
                "The questionnaire of the security review was issued on {day} and has not been "
                "returned.",
                day=_day(run, since),
            )
            action = _(
                "Ask the partner to return the questionnaire, or decide that the security "
                "review failed."
            )
        else:
            code = "partners.undecided"
            message = _(
                "The questionnaire was returned on {day}, and it was not yet decided whether the "
                "security review passed.",
                day=_day(run, since),
            )
            action = _(
                "Decide whether the security review passed. The person who returned the "
                "questionnaire must not decide."
            )
        findings.warn(
            code,
            message,
            action,
            subject=number,
            clause=CLAUSE_REVIEW,
            for_engineers=_decide_command(number),
        )


def _is_in_time(run: RunContext[PartnerRules], since: datetime) -> bool:
    return run.today <= add_period(_day(run, since), run.rules.return_within)


def _day(run: RunContext[PartnerRules], moment: datetime) -> date:
    return moment.astimezone(run.zone).date()


def _measure(
    findings: StepFindings,
    register: Register,
    all_obligations: Sequence[PartnerObligations],
    today: date,
) -> None:
    """Record the indicators of the controls that concern partners.

    If the partner register has no rows, the indicators are recorded as not measured. A row without
    a usable partner number counts as a partner without agreements and without a review.

    Args:
        findings: findings of the step.
        register: the partner register.
        all_obligations: obligations of each partner.
        today: day of the run.
    """
    live = [obligations for obligations in all_obligations if obligations.partner.live]
    unnamed = register.unnamed
    has_rows = bool(all_obligations or unnamed)
    unbound = sum(not obligations.is_bound(today) for obligations in live) + unnamed
    unreviewed = sum(not obligations.is_reviewed(today) for obligations in live) + unnamed
    findings.measure(UNBOUND, unbound if has_rows else None, "1")
    findings.measure(UNREVIEWED, unreviewed if has_rows else None, "1")
    findings.measure("partners.registered", len(all_obligations), "1")
    findings.measure("partners.live", len(live), "1")
    blocked = sum(not sharing_status(obligations, today).is_allowed for obligations in live)
    findings.measure("partners.live_blocked", blocked, "1")


def _count_queued(conn: Connection, run: Run) -> int:
    """Return the number of reminders that this run has queued, in all attempts of the step."""
    table = notification.c
    query = select(func.count()).where(
        table.dag_id == run.dag_id,
        table.run_id == run.run_id,
        table.kind.in_((REMINDER, CONTACT)),
    )
    return int(conn.scalar(query) or 0)


def _checked_partner(
    run: RunContext[PartnerRules], obligations: PartnerObligations
) -> CheckedPartner:
    partner, today = obligations.partner, run.today
    days_left = [
        (term.last_day - today).days
        for term in obligations.terms
        if term.state(today) is TermState.VALID and term.last_day
    ]
    ends_in = min(days_left, default=None)
    soon = ends_in is not None and ends_in <= run.rules.ladder[0]
    return CheckedPartner(
        partner=partner.number,
        name=partner.name,
        tier=partner.tier,
        live=partner.live,
        nda=_term_record(obligations.term(ObligationKind.NDA), today),
        agreement=_term_record(obligations.term(ObligationKind.AGREEMENT), today),
        review=_term_record(obligations.review, today),
        allowed=sharing_status(obligations, today).is_allowed,
        ends_in=ends_in if soon else None,
    )


def _term_record(term: Term | None, today: date) -> TermRecord | None:
    if term is None:
        return None
    is_dated = term.kind not in (ObligationKind.FAILED, ObligationKind.REOPENED)
    return TermRecord(
        what=term.kind,
        begins=term.first_day,
        until=term.last_day if is_dated else None,
        state=term.state(today),
    )


def _open_review(
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
        score=format_score(share) if share is not None else None,
        passes=score.passes if score else None,
    )


def _local(run: RunContext[PartnerRules], at: datetime | None) -> datetime | None:
    return at.astimezone(run.zone) if at else None


def _sub_processors(all_obligations: Sequence[PartnerObligations]) -> list[NamedSubProcessor]:
    return [
        NamedSubProcessor(
            partner=obligations.partner.number,
            name=sub_processor.name,
            country=sub_processor.country,
            what_for=sub_processor.purpose,
        )
        for obligations in all_obligations
        if obligations.partner.live and obligations.reviews.passed is not None
        for sub_processor in obligations.reviews.passed.sub_processors
    ]
