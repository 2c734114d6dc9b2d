"""The step of `review_partners`: what binds each partner today, what has lapsed, who is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from include.evidence.examination import Examination
from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import record_step
from include.messages import Message, _
from include.notify import outbox
from include.notify.outbox import Run
from include.partners import history, reminders
from include.partners.abroad import abroad, countries
from include.partners.desk import Desk
from include.partners.history import Known, Review
from include.partners.names import (
    CLAUSE_BOUND,
    CLAUSE_REVIEW,
    CONTACT,
    REMINDER,
    STEP_LOOK,
    UNBOUND,
    UNREVIEWED,
)
from include.partners.register import Partner, Register
from include.partners.score import shown
from include.partners.standing import Bound, against, of
from include.partners.terms import State, Term, What, after
from include.state.notices import notice

_NEVER_FAILS = ("partners.name", "partners.nda_from_missing")
_CODES = {
    (What.NDA, State.LAPSED): "partners.nda_lapsed",
    (What.NDA, State.MISSING): "partners.nda_missing",
    (What.NDA, State.NOT_YET): "partners.nda_not_begun",
    (What.AGREEMENT, State.LAPSED): "partners.agreement_lapsed",
    (What.AGREEMENT, State.MISSING): "partners.agreement_missing",
    (What.REVIEW, State.LAPSED): "partners.review_lapsed",
    (What.REVIEW, State.MISSING): "partners.review_missing",
    (What.FAILED, State.LAPSED): "partners.review_failed",
    (What.REOPENED, State.LAPSED): "partners.review_reopened",
}


def look(desk: Desk) -> StepRecord:
    """Look at every partner, and queue what people are to be told.

    What is queued, and the record that says so, are kept together: a run that is killed and
    repeated tells nobody twice, and says the same.

    Args:
        desk: of the run.

    Raises:
        UsageError: the register cannot be read.
        ServiceError: its database is not there.
    """
    seen = Examination(STEP_LOOK, CLAUSE_BOUND)
    register = desk.register()
    with desk.state.begin() as conn:
        known = history.known(conn)
        bound = desk.bound(known, register.partners)
        for one in bound:
            _terms(seen, one, desk.today)
            _abroad(seen, one)
        _oddities(seen, register)
        _nobody(seen, register)
        _reviews(seen, desk, known, register.partners)
        due = list(reminders.reached(desk, bound))
        told = list(reminders.notices(desk, due))
        outbox.queue(conn, told, desk.run, desk.clock.now(), desk.notices)
        _measure(seen, register, bound, desk.today)
        seen.measure("partners.reminders", _queued_by(conn, desk.run), "1")
        record = seen.record(
            {
                "partners": [_row(desk, one) for one in bound],
                "reviews": [
                    _review(desk, one.open, register.partners) for one in known.values() if one.open
                ],
                "sub_processors": _sub_processors(bound),
                "unnamed": register.unnamed,
                "soon_days": desk.rules.ladder[0],
            }
        )
        record_step(conn, desk.run.dag_id, desk.run.run_id, record, desk.clock)
    return record


def _terms(seen: Examination, one: Bound, today: date) -> None:
    """What has lapsed of a partner with access."""
    if not one.partner.live:
        return
    for term in one.terms:
        reason = against(term, today)
        if reason is None:
            continue
        agreed = term.what in (What.NDA, What.AGREEMENT)
        seen.find(
            _CODES[term.what, term.state(today)],
            Outcome.FAIL,
            _("{partner}: {what}", partner=one.partner.called, what=reason),
            _renew() if agreed else _review_it(one.partner.number),
            subject=one.partner.number,
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


def _abroad(seen: Examination, one: Bound) -> None:
    """Sub-processors outside of China, whatever the answers beside them say."""
    passed = one.known.passed
    if not one.partner.live or passed is None:
        return
    named = abroad(passed.sub_processors)
    if named:
        seen.find(
            "partners.sub_processor_abroad",
            Outcome.ATTENTION,
            _(
                "{partner}: sub-processors that are not given as in China: {count} ({countries}).",
                partner=one.partner.called,
                count=len(named),
                countries=countries(named),
            ),
            _(
                "See whether customer information may be provided there (Personal Information "
                "Protection Law (2021-11-01) 38-40) and whether the partner's answers say so; "
                "else open the review again, which refuses sharing at once: ./parcelseal partners "
                "reopen {partner} --because TEXT --by ID",
                partner=one.partner.number,
            ),
            subject=one.partner.number,
        )


def _oddities(seen: Examination, register: Register) -> None:
    for one in register.oddities:
        partner = register.partners[one.partner]
        fails = partner.live and one.code not in _NEVER_FAILS
        seen.find(
            one.code,
            Outcome.FAIL if fails else Outcome.ATTENTION,
            _("{partner}: {what}", partner=partner.called, what=one.message),
            one.action,
            subject=one.partner,
        )
    if register.unnamed:
        seen.find(
            "partners.without_number",
            Outcome.FAIL,
            _(
                "{count} rows of the register have no number by which a partner can be named.",
                count=register.unnamed,
            ),
            _("Give each a number without blanks, slashes and #; until then it counts as none."),
        )


def _nobody(seen: Examination, register: Register) -> None:
    """A register in which nothing could be looked at: more likely a wrong one than a true one."""
    if register.unnamed:
        return  # whoever that is may have access, and is a failure already
    if not register.partners:
        seen.find(
            "partners.nobody",
            Outcome.FAIL,
            _("The register has no partner: whether partners are bound was not seen."),
            _(
                "Correct the query of partners.yaml or its rights; a company without partners "
                "leaves partners.yaml out."
            ),
        )
    elif not any(one.live for one in register.partners.values()):
        seen.find(
            "partners.nobody_with_access",
            Outcome.ATTENTION,
            _("By the register, none of its {count} partners has access.",
              count=len(register.partners)),
            _("See whether that is so; only partners with access are looked at."),
        )  # fmt: skip


def _reviews(
    seen: Examination, desk: Desk, known: Mapping[str, Known], partners: Mapping[str, Partner]
) -> None:
    """Reviews that wait for somebody."""
    for number, one in known.items():
        review = one.open
        if review is None:
            continue
        if number not in partners:
            seen.find(
                "partners.gone",
                Outcome.ATTENTION,
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
        if since is None or _within(desk, since):
            continue
        if review.returned_at is None:
            code = "partners.questionnaire_out"
            message = _("{partner}: the questionnaire has been out since {day}.",
                        partner=partners[number].called, day=_day(desk, since))  # fmt: skip
            action = _("Ask the partner for it, or decide that the review failed.")
        else:
            code = "partners.undecided"
            message = _("{partner}: the answers have been back since {day}, and nobody decided.",
                        partner=partners[number].called, day=_day(desk, since))  # fmt: skip
            action = _(
                "Have somebody who did not hand them in decide: ./parcelseal partners decide "
                "{partner} --passed --by ID --reason TEXT (or --failed)",
                partner=number,
            )
        seen.find(code, Outcome.ATTENTION, message, action, subject=number, clause=CLAUSE_REVIEW)


def _within(desk: Desk, since: datetime) -> bool:
    return desk.today <= after(_day(desk, since), desk.rules.return_within)


def _day(desk: Desk, moment: datetime) -> date:
    return moment.astimezone(desk.zone).date()


def _measure(seen: Examination, register: Register, bound: Sequence[Bound], today: date) -> None:
    """The figures of the controls; of whom the register cannot tell anything nobody shows it.

    A register without rows shows nothing: the figures are not measured, they are not zero.
    """
    live = [one for one in bound if one.partner.live]
    nameless = register.unnamed
    anybody = bool(bound or nameless)
    unbound = sum(not one.is_bound(today) for one in live) + nameless
    unreviewed = sum(not one.is_reviewed(today) for one in live) + nameless
    seen.measure(UNBOUND, unbound if anybody else None, "1")
    seen.measure(UNREVIEWED, unreviewed if anybody else None, "1")
    seen.measure("partners.registered", len(bound), "1")
    seen.measure("partners.live", len(live), "1")
    blocked = sum(not of(one, today).allowed for one in live)
    seen.measure("partners.live_blocked", blocked, "1")


def _queued_by(conn: Connection, run: Run) -> int:
    """Notices that this run queued, by this try of its step or an earlier one."""
    table = notice.c
    query = select(func.count()).where(
        table.dag_id == run.dag_id,
        table.run_id == run.run_id,
        table.kind.in_((REMINDER, CONTACT)),
    )
    return int(conn.scalar(query) or 0)


def _row(desk: Desk, one: Bound) -> dict[str, Any]:
    partner, today = one.partner, desk.today
    left = [
        (term.last_day - today).days
        for term in one.terms
        if term.state(today) is State.VALID and term.last_day
    ]
    ends_in = min(left, default=None)
    soon = ends_in is not None and ends_in <= desk.rules.ladder[0]
    return {
        "partner": partner.number,
        "name": partner.name,
        "tier": partner.tier,
        "live": partner.live,
        "nda": _told(one.term(What.NDA), today),
        "agreement": _told(one.term(What.AGREEMENT), today),
        "review": _told(one.review, today),
        "allowed": of(one, today).allowed,
        "ends_in": ends_in if soon else None,
    }


def _told(term: Term | None, today: date) -> dict[str, Any] | None:
    if term is None:
        return None
    day = term.last_day if term.what not in (What.FAILED, What.REOPENED) else None
    return {
        "what": str(term.what),
        "begins": term.first_day.isoformat() if term.first_day else None,
        "until": day.isoformat() if day else None,
        "state": str(term.state(today)),
    }


def _review(desk: Desk, one: Review, partners: Mapping[str, Partner]) -> dict[str, Any]:
    found = one.score
    share = found.share if found else None
    partner = partners.get(one.partner) or Partner(one.partner)
    return {
        "id": one.id,
        "partner": one.partner,
        "name": partner.name,
        "because": one.because,
        "opened_at": one.opened_at.astimezone(desk.zone).isoformat(),
        "issued_at": _moment(desk, one.issued.issued_at if one.issued else None),
        "returned_at": _moment(desk, one.returned_at),
        "score": shown(share) if share is not None else None,
        "passes": found.passes if found else None,
    }


def _moment(desk: Desk, at: datetime | None) -> str | None:
    return at.astimezone(desk.zone).isoformat() if at else None


def _sub_processors(bound: Sequence[Bound]) -> list[dict[str, str]]:
    """Who processes for partners with access, by the last review that passed."""
    return [
        {
            "partner": one.partner.number,
            "name": named.name,
            "country": named.country,
            "what_for": named.what_for,
        }
        for one in bound
        if one.partner.live and one.known.passed is not None
        for named in one.known.passed.sub_processors
    ]
