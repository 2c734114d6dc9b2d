"""Open, issue, decide and reopen security reviews of partners, and store the partners' answers.

Triggers of the state database refuse changes of a decided review. To correct a decision, a person
has to open a new review. As long as a review is not decided, a partner can return another file. Its
answers replace those of the earlier file.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, delete, insert, null, update
from sqlalchemy.dialects.postgresql import insert as insert_or_leave

from include.approvals.approvers import is_among
from include.approvals.reasons import has_personal_number, has_words, redact_reason
from include.messages import _
from include.partners import questionnaire
from include.partners.history import Review, load_review, lock_open_review
from include.partners.questionnaire import (
    IssuedQuestionnaire,
    ReturnedAnswers,
    read_answers,
    read_binding,
)
from include.partners.register import Partner, load_register
from include.partners.rules import IssuedQuestion, PartnerRules, Score
from include.partners.tables import partner_answer, partner_review, partner_sub_processor
from include.policy.rates import exact_text
from include.services.errors import ParcelSealError, UsageError
from include.workflow.run_context import PartnerIncident, PartnerReaction, RunContext

_OWN_RULE = _("the company's own rule")


def issue_questionnaire(
    conn: Connection,
    partner: Partner,
    rules: PartnerRules,
    *,
    by: str,
    at: datetime,
    timezone: str,
    reissue: bool = False,
) -> Review:
    """Issue the questionnaire for a partner's open review. Open a review if none is open.

    If the questionnaire was already issued, nothing is changed and the review is returned. This is
    so even if the questions of the policy pack have changed. With `reissue`, the questionnaire is
    replaced.

    Args:
        conn: connection to the state database, on which a transaction is open.
        partner: the partner, as the partner register describes it.
        rules: content of partners.yaml.
        by: name or staff number of the person who issues the questionnaire.
        at: time of issue.
        timezone: IANA name of the policy pack's timezone.
        reissue: whether an issued questionnaire is replaced by a questionnaire with the questions
            of the current policy pack. Answers to the replaced questionnaire are discarded.

    Raises:
        UsageError: the name of the person is missing, the policy pack does not have the partner's
            tier, or the register has several rows for the partner.
    """
    _require_name(by)
    tier = rules.tier(partner.tier)
    if not partner.is_unambiguous or tier is None:
        raise UsageError(
            f"The register does not state one valid tier of partner {partner.number}.",
            "Correct the register. ./parcelseal partners list shows its faults.",
        )
    review = lock_open_review(conn, partner.number) or _open_review(conn, partner.number, by, at)
    if review.issued is not None and not reissue:
        return review
    issued = IssuedQuestionnaire(
        review=review.id,
        partner=partner.number,
        name=partner.name,
        tier=tier.tier,
        pass_mark=exact_text(tier.pass_mark),
        issued_at=at,
        timezone=timezone,
        asked=tuple(
            IssuedQuestion.from_rules(question, _OWN_RULE) for question in rules.questionnaire
        ),
        sub_processors=rules.sub_processors,
    )
    _discard_answers(conn, review)
    _update(
        conn,
        review,
        issued=questionnaire.to_json(issued),
        issued_sha256=issued.sha256,
        issued_at=at,
    )
    return load_review(conn, review.id)


def accept_questionnaire(
    conn: Connection, content: bytes, name: str, *, by: str, at: datetime
) -> Review:
    """Store the answers of a returned questionnaire, or refuse the file and list all its faults.

    Args:
        conn: connection to the state database, on which a transaction is open.
        content: bytes of the file. Only the SHA-256 of the file and its answers are stored.
        name: file name, for error messages.
        by: name or staff number of the person who hands the file in.
        at: time of the return.

    Raises:
        UsageError: the file has faults, belongs to no open review, or is dated in the future.
    """
    _require_name(by)
    partner, number = read_binding(content, name)
    review = lock_open_review(conn, partner)
    if review is None or review.issued is None or str(review.id) != number:
        raise UsageError(
            f"{name} belongs to review {number} of partner {partner}, which is not open.",
            f"Issue a questionnaire: ./parcelseal partners questionnaire {partner} --out FILE.",
        )
    returned = read_answers(content, name, review.issued)  # the error lists all faults
    day = at.astimezone(ZoneInfo(review.issued.timezone)).date()
    if returned.answered_on > day:
        raise UsageError(
            f"{name} was answered on {returned.answered_on}, which is in the future.",
            "Ask the partner to correct the date in the workbook.",
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest == review.file_sha256:
        return review  # the same file was returned again
    _discard_answers(conn, review)
    _update(
        conn,
        review,
        returned_at=at,
        returned_by=by.strip(),
        answered_on=returned.answered_on,
        file_sha256=digest,
    )
    _insert_answers(conn, review.id, returned)
    return load_review(conn, review.id)


def decide(
    conn: Connection, partner: str, *, passed: bool, by: str, reason: str, at: datetime
) -> Review:
    """Decide that a partner's open review passes or fails. The decision cannot be changed later.

    Args:
        conn: connection to the state database, on which a transaction is open.
        partner: number of the partner.
        passed: whether the review passes. A review without answers can only fail.
        by: name or staff number of the approver, who must not have handed in a questionnaire file
            of the review.
        reason: reason in plain words.
        at: time of the decision.

    Raises:
        UsageError: no review is open, the approver is missing or not allowed, the reason is empty,
            or ``passed`` is True although the answers do not reach the pass mark.
    """
    _require_name(by)
    review = lock_open_review(conn, partner)
    if review is None:
        raise UsageError(
            f"No review of partner {partner} is open.",
            "A decision cannot be changed. To correct it, start a new review with its "
            f"questionnaire: ./parcelseal partners questionnaire {partner} --out FILE "
            "--by ID. Use partners reopen only after an incident: it blocks sharing until the "
            "review passes.",
        )
    if not has_words(reason):
        raise UsageError("The reason has no words.", "Write it in plain words: --reason.")
    if is_among(by, review.handed_in_by):
        raise UsageError(
            f"{by.strip()} returned the questionnaire and must not decide on it.",
            "Ask another person to decide.",
        )
    score = review.score
    if passed and (score is None or not score.passes):
        raise UsageError(*_refusal(review, score))
    share = exact_text(score.share) if score is not None and score.share is not None else None
    _update(
        conn,
        review,
        decided_at=at,
        decided_by=by.strip(),
        passed=passed,
        score=share,
        reason=redact_reason(reason),
    )
    return load_review(conn, review.id)


def reopen(
    conn: Connection, partner: str, *, because: str, by: str, at: datetime, incident: str = ""
) -> Review:
    """Reopen a partner's security review, for example after an incident.

    Sharing with the partner is blocked until the review passes. If the partner has an open review,
    it is marked as reopened, and its questionnaire and answers are discarded, because they are
    older than the incident. If the partner has no open review, a new review is opened. A second
    call with the same reason has no effect unless the questionnaire was issued after the first
    call.

    Args:
        conn: connection to the state database, on which a transaction is open.
        partner: number of the partner.
        because: reason in plain words. Phone, ID and similar numbers in it are redacted.
        by: name or staff number of the person who asks for the review.
        at: time of the call.
        incident: number of the incident, which is stored in front of the reason; empty if there is
            no incident.

    Raises:
        UsageError: ``by`` is empty or contains a phone or ID number, or the reason is empty.
    """
    _require_name(by)
    if not has_words(because):
        raise UsageError("The reason has no words.", "Write it in plain words: --because.")
    why = f"{incident}: {redact_reason(because)}" if incident else redact_reason(because)
    review = lock_open_review(conn, partner) or _open_review(conn, partner, by, at)
    is_issued_or_returned = review.issued is not None or review.returned_at is not None
    if not is_issued_or_returned and f"; {why}; " in f"; {review.because}; ":
        return review  # a repeated call: the review already blocks sharing
    # Answers that are older than the incident must not decide the review
    _discard_answers(conn, review)
    _update(
        conn,
        review,
        reopened_because=f"{review.because}; {why}" if review.because else why,
        reopened_at=at,
        reopened_by=by.strip(),
        issued=null(),
        issued_sha256=None,
        issued_at=None,
    )
    return load_review(conn, review.id)


def _require_name(by: str) -> None:
    if not by.strip():
        raise UsageError("The person is not named.", "Name the person with --by.")
    if has_personal_number(by):
        raise UsageError(
            "The name in --by contains a mobile or ID number.", "Write a name or a staff number."
        )


def _refusal(review: Review, score: Score | None) -> tuple[str, str]:
    action = "Decide that the review failed, or ask the partner to correct it and answer again."
    if score is None:
        return f"The questionnaire of partner {review.partner} has not been returned.", action
    if score.failed:
        return f"Critical questions were answered with no: {', '.join(score.failed)}.", action
    return f"The score of partner {review.partner} is below the pass mark.", action


def _open_review(conn: Connection, partner: str, by: str, at: datetime) -> Review:
    statement = (
        insert_or_leave(partner_review)
        .values(partner=partner, opened_at=at, opened_by=by.strip())
        .on_conflict_do_nothing()
    )
    conn.execute(statement)
    review = lock_open_review(conn, partner)  # a concurrent transaction may have opened it
    assert review is not None
    return review


def _update(conn: Connection, review: Review, **values: Any) -> None:
    conn.execute(update(partner_review).where(partner_review.c.id == review.id).values(values))


def _discard_answers(conn: Connection, review: Review) -> None:
    """Delete the answers of a review.

    The SHA-256 of the file with the answers, the person who handed in the file, and the time of the
    return are kept.
    """
    if review.returned_at is None:
        return
    last = {
        "file_sha256": review.file_sha256,
        "by": review.returned_by,
        "at": review.returned_at.isoformat(),
    }
    for table in (partner_answer, partner_sub_processor):
        conn.execute(delete(table).where(table.c.review_id == review.id))
    cleared = dict.fromkeys(("returned_at", "returned_by", "answered_on", "file_sha256"))
    _update(conn, review, replaced=[*map(dict, review.replaced), last], **cleared)


def _insert_answers(conn: Connection, number: int, returned: ReturnedAnswers) -> None:
    answers = [
        {
            "review_id": number,
            "question": name,
            "answer": str(answer.answer),
            "note": answer.note,
        }
        for name, answer in returned.answers.items()
    ]
    conn.execute(insert(partner_answer), answers)
    sub_processors = [
        {
            "review_id": number,
            "position": position,
            "name": sub_processor.name,
            "country": sub_processor.country,
            "purpose": sub_processor.purpose,
        }
        for position, sub_processor in enumerate(returned.sub_processors, 1)
    ]
    if sub_processors:
        conn.execute(insert(partner_sub_processor), sub_processors)


def reopen_review(
    run: RunContext[PartnerRules], conn: Connection, incident: PartnerIncident
) -> PartnerReaction:
    """Reopen the security review of a partner at which an incident happened.

    Sharing with the partner is blocked until the review passes.

    Args:
        run: context of the run.
        conn: connection to the state database, on which a transaction is open.
        incident: incident at the partner.

    Returns:
        The number of the reopened review, and the action that people have to take. If the partner
        is not in the partner register, no review is reopened, and the action is to find the right
        partner number.
    """
    partner = incident.partner
    if not _is_registered(run, partner):
        return PartnerReaction(
            None,
            _(
                "The partner register has no partner {partner}, so no security review was "
                "reopened. Find the partner's number in the partner register, then have its "
                "security review reopened.",
                partner=partner,
            ),
        )
    review = reopen(
        conn,
        partner,
        because=incident.description,
        by=incident.by,
        at=incident.at,
        incident=incident.incident,
    )
    return PartnerReaction(
        review.id,
        _(
            "The security review of partner {partner} was reopened. Do not share customer "
            "information with the partner until the review passes.",
            partner=partner,
        ),
    )


def _is_registered(run: RunContext[PartnerRules], partner: str) -> bool:
    """Return whether a partner is in the partner register; True if the register cannot be read.

    An incident therefore reopens the review even if the register cannot be read. People notice a
    review that was reopened without need. They would not notice that data is still shared with the
    partner.
    """
    try:
        return partner in load_register(run).partners
    except ParcelSealError:
        return True
