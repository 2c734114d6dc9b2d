"""Reviews of partners: opened (also after an incident), issued, returned, and decided.

What was decided on is never changed, by nobody: triggers of the state database refuse it. A
correction is a new review. What comes back counts until the decision; a later file takes its place.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, delete, insert, null, update
from sqlalchemy.dialects.postgresql import insert as insert_or_leave

from include.approvals.people import is_among
from include.approvals.reasons import names_a_person, says_something, value_free_reason
from include.messages import _
from include.partners import questionnaire
from include.partners.history import Review, one, open_one
from include.partners.questionnaire import Issued, Returned, issue_of, read
from include.partners.register import Partner, register_of
from include.partners.rules import Asked, PartnerRules, Score
from include.partners.tables import partner_answer, partner_review, partner_sub_processor
from include.policy.rates import exact
from include.services.errors import ParcelSealError, UsageError
from include.workflow.run_context import PartnerIncident, PartnerReaction, RunContext

_OWN = _("the company's own rule")


def issue(
    conn: Connection,
    partner: Partner,
    rules: PartnerRules,
    *,
    by: str,
    at: datetime,
    timezone: str,
    anew: bool = False,
) -> Review:
    """Issue the questionnaire of a partner's open review; opens one where none is open.

    Issued again, it is the same one, whatever the pack asks by now.

    Args:
        conn: the state database, in a transaction.
        partner: of the register.
        rules: partners.yaml.
        by: who issues it.
        at: the moment.
        timezone: of the pack.
        anew: whether it asks what the pack asks now; one that was issued before, and what came back
            of it, counts no more.

    Raises:
        UsageError: the partner has no tier of the pack, or its rows in the register differ.
    """
    _named(by)
    tier = rules.tier(partner.tier)
    if not partner.clear or tier is None:
        raise UsageError(
            f"The register does not say of which tier partner {partner.number} is.",
            "Correct the register: ./parcelseal partners list.",
        )
    review = open_one(conn, partner.number) or _new(conn, partner.number, by, at)
    if review.issued is not None and not anew:
        return review
    issued = Issued(
        review=review.id,
        partner=partner.number,
        name=partner.name,
        tier=tier.tier,
        pass_mark=exact(tier.pass_mark),
        issued_at=at,
        timezone=timezone,
        asked=tuple(Asked.of(question, _OWN) for question in rules.questionnaire),
        sub_processors=rules.sub_processors,
    )
    _forget_answers(conn, review)
    _set(
        conn,
        review,
        issued=questionnaire.to_json(issued),
        issued_sha256=issued.sha256,
        issued_at=at,
    )
    return one(conn, review.id)


def hand_in(conn: Connection, content: bytes, name: str, *, by: str, at: datetime) -> Review:
    """Take a questionnaire back, or refuse it with every fault; nothing is kept of a refused one.

    Args:
        conn: the state database, in a transaction.
        content: the file; it stays with who handed it in, and its digest says which one it was.
        name: its name, for messages.
        by: who hands it in.
        at: the moment.

    Raises:
        UsageError: it has faults, is of no open review, or was answered on a day to come.
    """
    _named(by)
    partner, number = issue_of(content, name)
    review = open_one(conn, partner)
    if review is None or review.issued is None or str(review.id) != number:
        raise UsageError(
            f"{name} is of review {number} of partner {partner}, which is not open.",
            f"Issue a questionnaire: ./parcelseal partners questionnaire {partner} --out FILE.",
        )
    returned = read(content, name, review.issued)  # refuses with every fault
    day = at.astimezone(ZoneInfo(review.issued.timezone)).date()
    if returned.answered_on > day:
        raise UsageError(
            f"{name} says that it was answered on {returned.answered_on}, which is to come.",
            "Have the day on which it was answered written.",
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest == review.file_sha256:
        return review  # the same file again
    _forget_answers(conn, review)
    _set(
        conn,
        review,
        returned_at=at,
        returned_by=by.strip(),
        answered_on=returned.answered_on,
        file_sha256=digest,
    )
    _keep(conn, review.id, returned)
    return one(conn, review.id)


def decide(
    conn: Connection, partner: str, *, passed: bool, by: str, reason: str, at: datetime
) -> Review:
    """Decide on a partner's open review; from then on it is history.

    Args:
        conn: the state database, in a transaction.
        partner: number of the partner.
        passed: what it comes to. One may fail without any answer; none passes without.
        by: who decides: nobody who handed in any of its files.
        reason: in plain words.
        at: the moment.

    Raises:
        UsageError: no review is open, nobody or the wrong one decides, the reason says nothing, or
            it should pass with answers that do not.
    """
    _named(by)
    review = open_one(conn, partner)
    if review is None:
        raise UsageError(
            f"No review of partner {partner} is open.",
            "What was decided stands; a new review, also to correct one, begins with its "
            f"questionnaire: ./parcelseal partners questionnaire {partner} --out FILE "
            "--by ID. Only after an incident use partners reopen: nothing may be shared with the "
            "partner until it passes.",
        )
    if not says_something(reason):
        raise UsageError("The reason says nothing.", "Write it in plain words: --reason.")
    if is_among(by, review.handed_in_by):
        raise UsageError(
            f"{by.strip()} handed the questionnaire in and cannot decide on it.",
            "Have somebody else decide.",
        )
    found = review.score
    if passed and (found is None or not found.passes):
        raise UsageError(*_why_not(review, found))
    share = exact(found.share) if found is not None and found.share is not None else None
    _set(
        conn,
        review,
        decided_at=at,
        decided_by=by.strip(),
        passed=passed,
        score=share,
        reason=value_free_reason(reason),
    )
    return one(conn, review.id)


def reopen(
    conn: Connection, partner: str, *, because: str, by: str, at: datetime, incident: str = ""
) -> Review:
    """Open a partner's review again, as after an incident; until it passes, nothing is shared.

    One that is open already becomes one that was opened again, and what was issued and answered
    before counts no more, whatever the words: the same ones may be of a second incident. Only while
    nothing was issued since, the same words again change nothing.

    Args:
        conn: the state database, in a transaction.
        partner: number of the partner.
        because: why, in plain words.
        by: who opens it.
        at: the moment.
        incident: number of the incident that is why; it stands before the words, from which
            numbers are blotted out.

    Raises:
        UsageError: nobody is named, or the reason says nothing.
    """
    _named(by)
    if not says_something(because):
        raise UsageError("The reason says nothing.", "Write it in plain words: --because.")
    why = f"{incident}: {value_free_reason(because)}" if incident else value_free_reason(because)
    review = open_one(conn, partner) or _new(conn, partner, by, at)
    answering = review.issued is not None or review.returned_at is not None
    if not answering and f"; {why}; " in f"; {review.because}; ":
        return review  # said again, and nothing happened since: it is blocked as it was
    # What was answered before it became known cannot be an answer to it
    _forget_answers(conn, review)
    _set(
        conn,
        review,
        reopened_because=f"{review.because}; {why}" if review.because else why,
        reopened_at=at,
        reopened_by=by.strip(),
        issued=null(),
        issued_sha256=None,
        issued_at=None,
    )
    return one(conn, review.id)


def _named(by: str) -> None:
    if not by.strip():
        raise UsageError("Nobody is named.", "Name the person with --by.")
    if names_a_person(by):
        raise UsageError("--by holds a mobile or ID number.", "Write a name or a staff number.")


def _why_not(review: Review, found: Score | None) -> tuple[str, str]:
    action = "Decide that it failed, or have the partner mend it and answer again."
    if found is None:
        return f"The questionnaire of partner {review.partner} is not back.", action
    if found.failed:
        return f"Critical questions were answered with no: {', '.join(found.failed)}.", action
    return f"The score of partner {review.partner} is below the pass mark.", action


def _new(conn: Connection, partner: str, by: str, at: datetime) -> Review:
    statement = (
        insert_or_leave(partner_review)
        .values(partner=partner, opened_at=at, opened_by=by.strip())
        .on_conflict_do_nothing()
    )
    conn.execute(statement)
    found = open_one(conn, partner)  # somebody else's, where two opened one at once
    assert found is not None
    return found


def _set(conn: Connection, review: Review, **values: Any) -> None:
    conn.execute(update(partner_review).where(partner_review.c.id == review.id).values(values))


def _forget_answers(conn: Connection, review: Review) -> None:
    """Take away what was returned; which file it was stays."""
    if review.returned_at is None:
        return
    last = {
        "file_sha256": review.file_sha256,
        "by": review.returned_by,
        "at": review.returned_at.isoformat(),
    }
    for table in (partner_answer, partner_sub_processor):
        conn.execute(delete(table).where(table.c.review_id == review.id))
    none = dict.fromkeys(("returned_at", "returned_by", "answered_on", "file_sha256"))
    _set(conn, review, replaced=[*map(dict, review.replaced), last], **none)


def _keep(conn: Connection, number: int, returned: Returned) -> None:
    answers = [
        {"review_id": number, "question": name, "answer": str(given.answer), "note": given.note}
        for name, given in returned.answers.items()
    ]
    conn.execute(insert(partner_answer), answers)
    others = [
        {
            "review_id": number,
            "place": place,
            "name": given.name,
            "country": given.country,
            "what_for": given.what_for,
        }
        for place, given in enumerate(returned.sub_processors, 1)
    ]
    if others:
        conn.execute(insert(partner_sub_processor), others)


def reopen_review(
    run: RunContext[PartnerRules], conn: Connection, incident: PartnerIncident
) -> PartnerReaction:
    """Open the review of a partner again; nothing is shared with the partner until it passes.

    Args:
        run: of the register.
        conn: the state database, in a transaction.
        incident: at the partner.
    """
    partner = incident.partner
    if not _is_registered(run, partner):
        return PartnerReaction(
            None,
            _(
                "The register has no partner {partner}: no security review was opened again. Look "
                "for its number (./parcelseal partners list), then reopen its review.",
                partner=partner,
            ),
        )
    review = reopen(
        conn,
        partner,
        because=incident.because,
        by=incident.by,
        at=incident.at,
        incident=incident.incident,
    )
    return PartnerReaction(
        review.id,
        _(
            "The security review of partner {partner} was opened again: nothing is shared with it "
            "until it passes.",
            partner=partner,
        ),
    )


def _is_registered(run: RunContext[PartnerRules], partner: str) -> bool:
    """Return whether the register has the partner, or cannot be read.

    A review too many is noticed and decided on; a partner that leaks and is served on is not.
    """
    try:
        return partner in register_of(run).partners
    except ParcelSealError:
        return True
