"""Decide whether affected people are notified; another person than the impact's author decides.

They need not be told where measures avoid the harm (PIPL (2021-11-01) 57); that is a decision with
reasons too. It is bound to the letter's words and the list of people, by their digest. An addition
decides on the people who came to the list since; what was decided on the others stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from include.approvals import registry
from include.approvals.form import Field
from include.approvals.people import same_person
from include.approvals.question import Question, in_both
from include.approvals.registry import APPROVE, REJECT, Decision, Refusal, Request
from include.incident import decisions, incident_run, timeline
from include.incident.entries import Decided
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    record_in,
    scenario_of,
)
from include.incident.names import INDIVIDUAL, UPDATES, Kind
from include.incident.rules import HumanStep, Letter
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given
from include.incident.steps.page import human_task
from include.incident.team import team_of, who_answered
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook, Reach
from include.incident.telling.authority_report import sealed_document
from include.incident.telling.letter_document import letter_document
from include.incident.telling.notifying import NoticePlan
from include.incident.timeline import Entry, last_of, of_kind
from include.messages import Message, _, listed, verbatim
from include.notify import outbox
from include.notify.notice import NOT_WANTED
from include.notify.texts import LetterText, digest
from include.services.errors import ControlFailed


def letter_lines(letter: LetterText) -> list[Message]:
    """The letter as it would be sent, part by part."""
    parts = [_("“{title}”: {words}", title=one.title, words=one.words) for one in letter.parts]
    return [_("The letter: {heading}", heading=letter.heading), letter.opening, *parts]


def reach_lines(plan: NoticePlan, reach: Reach | None, rules: Letter) -> list[Message]:
    """Whom it would go to: the dry run.

    Args:
        plan: whom it is meant for.
        reach: who has a usable address; None in a drill.
        rules: of incident.yaml.
    """
    lines = [
        _(
            "{people} people are affected; {new} of them were sent nothing before.",
            people=plan.people,
            new=plan.new,
        )
    ]
    if reach is None:
        return [*lines, _("DRILL: no address was looked up.")]
    lines.append(
        _(
            "{usable} have an address of their own; {without} have none, of {malformed} it cannot "
            "be used, {shared} share one with at least {most} others.",
            usable=reach.usable,
            without=reach.without,
            malformed=reach.malformed,
            shared=reach.shared,
            most=rules.shared_by - 1,
        )
    )
    if plan.people and reach.unusable > rules.unusable_at_most * plan.people:
        lines.append(
            _(
                "UNUSUALLY MANY cannot be reached by mail: is this the right list? Tick that it "
                "was looked at, or do not tell yet."
            )
        )
    return lines


STEP: HumanStep = "decide"
TELL, DO_NOT_TELL = "Tell people", "Do not tell"
REASON, LOOKED = "reason", "list_looked_at"


def form() -> list[Field]:
    """Reasons, and that the list of addresses was looked at."""
    return [
        Field(
            name=REASON,
            title=_("Reasons"),
            kind="long_text",
            required=True,
            longest=page.LONGEST,
        ),
        Field(
            name=LOOKED,
            title=_("The list of addresses was looked at and is the right one"),
            help=_("Needed where unusually many people have no usable address."),
            kind="yes_no",
        ),
    ]


def question(run: IncidentRun, record: IncidentRecord) -> Question | None:
    """Ask for the decision, with the dry run; None where one stands for just these people.

    That people are not told may be decided anew: the step asks whenever it is cleared. Where nobody
    is affected, or an addition comes before the first decision, which will be about all, nobody is
    asked either.

    Raises:
        ControlFailed: a part of the letter is missing, or there is no list of people at all; it is
            named.
    """
    if run.run.dag_id == UPDATES and last_of(record.entries, Kind.DECIDED) is None:
        return None
    made, left = notifying.plan(run, record), notifying.not_listed(run, record)
    before = notifying.stands(record, made)
    if before is not None and not _asks_again(run, before):
        return None
    if not made.people:
        if left:
            raise ControlFailed(
                f"There is no list of affected people yet: nothing was read in {', '.join(left)}.",
                "Make it reachable, clear the tasks `assess` and `preserve`, then this one.",
            )
        notifying.nobody(run, record, made)
        return None
    made = notifying.reconsidered(record, made)
    writers = sorted(who_answered(record.entries, Kind.IMPACT))
    with run.state.begin() as conn:
        asked = notifying.request(conn, run, made, writers)
    return page.question(
        run,
        record,
        STEP,
        _("decide whether {count} people are told", count=made.covers),
        [
            *_before_lines(record, made),
            _("Nothing has been sent. This is what would be sent, and to whom:")
            if made.new == made.people
            else _("This is what would be sent, and to whom:"),
            *_left_lines(left),
            *reach_lines(made, _reach(run, record), run.rules.letter),
            *letter_lines(notifying.text_of(run, record)),
            _(
                "Your decision is bound to these words and this list: SHA-256 {sha}",
                sha=made.sha256,
            ),
            _("People need not be told where measures avoid the harm; authorities are anyway."),
        ],
        choices=[TELL, DO_NOT_TELL],
        form=form(),
        never=writers,
        content=asked.content,
    )


def ask(run: IncidentRun, record: IncidentRecord) -> Question | None:
    """Decide whether affected people are told; shows the letter and the dry run."""
    asked = question(run, record)
    if asked is None:
        return None
    document = letter_document(run, record, incident_run.newest(run, record.incident.id).categories)
    # Other words are another document: what somebody may have printed is not made anew.
    name = f"notice-{digest(notifying.text_of(run, record))[:8]}"
    path = sealed_document(run, record, document, name)
    lines = [_("The letter as a document, for those who are told on paper: {path}", path=path)]
    if run.services.mail_is_caught():
        lines.append(
            _(
                "WARNING: the connection mail leads to no mail server of yours. Letters would be "
                "written to files, and nobody would get them."
            )
        )
    return replace(asked, body="\n\n".join([asked.body, *map(in_both, lines)]) + "\n")


def take(run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Take the decision.

    Raises:
        AskAgain: nobody answered, it has no reasons, the list was not looked at, words or list
            changed since it was asked, or somebody else decided meanwhile.
    """
    with run.state.connect() as conn:
        if (done := answer.taken(conn, record, STEP, given)) is not None:
            return done
    writers = sorted(who_answered(record.entries, Kind.IMPACT))
    who = answer.person(run, record, STEP, given, writers)
    values = answer.read(run, record, STEP, given, form())
    if not values.says(REASON):
        answer.refuse(run, record, STEP, given, _("the reasons say nothing"), values)
    try:
        made = notifying.plan(run, record)
    except ControlFailed as error:
        answer.refuse(run, record, STEP, given, _("{words}", words=error.message), values)
    if given.option == TELL and _many_unusable(run, record, made) and not values.ticked(LOOKED):
        cause = _("too many people have no usable address: look at the list, and say so")
        answer.refuse(run, record, STEP, given, cause, values)
    may = team_of(run, record, STEP, writers).people
    found = _entered(run, record, given, who, values.text(REASON), may)
    if isinstance(found, Message):
        answer.refuse(run, record, STEP, given, found, values)
    return found


def _entered(
    run: IncidentRun,
    record: IncidentRecord,
    given: Given,
    who: str,
    reason: str,
    may: Sequence[str],
) -> Answered | Message:
    """Enter a decision in the registry and on the timeline, both or neither; else why not.

    Whoever else decides waits until then, and whatever they add to the timeline.
    """
    with run.state.begin() as conn:
        timeline.lock_incident(conn, record.incident.id)
        record = record_in(conn, record.incident.number)
        if (done := answer.taken(conn, record, STEP, given)) is not None:
            return done
        plain = notifying.plan(run, record)
        made = notifying.reconsidered(record, plain)
        about = *_run(run), notifying.APPROVAL, record.incident.number
        asked = registry.request_about(conn, *about, made.sha256)
        if asked is None or asked.content != given.content:
            return _changed(record, plain, registry.request_of(conn, *about))
        if notifying.stands(record, plain) is not None and not made.again:
            return _("it was decided elsewhere meanwhile")
        kept = registry.decision_on(conn, asked.id)
        if kept is None:
            decided = registry.decide(
                conn,
                asked,
                decision=APPROVE if given.option == TELL else REJECT,
                reason=reason,
                decided_by=who,
                decided_at=given.at,
                may_decide=may,
                content=given.content,
            )
            if isinstance(decided, Refusal):
                return _("it was not accepted: {cause}", cause=str(decided.cause))
            return _write(conn, run, record, made, asked, decided, given)
        # Taken before by a process that was killed: that one counts, not this.
        option = TELL if kept.approved else DO_NOT_TELL
        before = replace(given, option=option, at=kept.decided_at)
        answered = _write(conn, run, record, made, asked, kept, before)
        if same_person(kept.decided_by, who) and option == given.option:
            return answered
    return _("it was decided before, by {who}: {option}", who=kept.decided_by, option=option)


def _write(
    conn: Connection,
    run: IncidentRun,
    record: IncidentRecord,
    made: NoticePlan,
    asked: Request,
    decided: Decision,
    given: Given,
) -> Answered:
    """Enter it; letters with words that are decided on no more are taken back."""
    before = decisions.on_last_words(record.entries)
    if before and decisions.words_of(before[-1]) != (made.text_sha256, made.words_sha256):
        prefix = f"{record.incident.number}/"
        outbox.withdraw_alike(conn, INDIVIDUAL, prefix, NOT_WANTED, run.clock.now())
    data = {"tell": decided.approved, "sha256": made.sha256, "bound": made.bound}
    data |= {"request": asked.id, "people": made.people, "version": made.version}
    data |= {"adds_to": made.adds_to, "covers": made.covers}
    return answer.enter(
        conn, run, record, STEP, Kind.DECIDED, _said(made, decided), by=decided.decided_by,
        given=given, data=data,
    )  # fmt: skip


def _said(made: NoticePlan, decided: Decision) -> Message:
    count, reason = made.covers, decided.reason
    if made.adds_to is not None:
        if decided.approved:
            return _("{count} more affected people are told. {reason}", count=count, reason=reason)
        return _("{count} more affected people are not told. {reason}", count=count, reason=reason)
    if decided.approved:
        return _("{count} affected people are told. {reason}", count=count, reason=reason)
    return _("Affected people are not told. {reason}", reason=reason)


def _changed(record: IncidentRecord, made: NoticePlan, asked: Request | None) -> Message:
    found = notifying.stands(record, made)
    if found is not None and (asked is None or found.as_(Decided).request != asked.id):
        return _("it was decided elsewhere meanwhile")
    return _("words or list changed: look again")


def _asks_again(run: IncidentRun, before: Entry) -> bool:
    """Whether a decision that stands is asked for anew, by a step that somebody cleared.

    One to tell people is not. An addition asks whoever cleared the step with which it was decided.
    """
    decided = before.as_(Decided)
    if decided.tell or decided.request is None:
        return False
    if run.run.dag_id != UPDATES:
        return True
    with run.state.connect() as conn:
        asked = registry.request(conn, decided.request)
    return (asked.dag_id, asked.run_id) == _run(run)


def _before_lines(record: IncidentRecord, made: NoticePlan) -> list[Message]:
    """What was decided before, and what of it stands."""
    decided = of_kind(record.entries, Kind.DECIDED)
    lines = [_("Decided {at}: {words}", at=one.happened_at, words=one.words) for one in decided]
    if made.adds_to is not None:
        lines.append(
            _("Decide on the {count} people who came to the list since; what was decided on the "
              "others stands.", count=made.covers)
        )  # fmt: skip
    elif decided:
        lines.append(_("Decide anew, on everybody to whom nothing was sent: the last one counts."))
    return lines


def _left_lines(left: Sequence[str]) -> list[Message]:
    if not left:
        return []
    names = listed([verbatim(one) for one in left])
    return [
        _(
            "NOT ON THE LIST: people of {databases}, in which nobody could read. A decision of its "
            "own is asked for once they are found.",
            databases=names,
        )
    ]


def _reach(run: IncidentRun, record: IncidentRecord) -> Reach | None:
    """How many can be reached; nobody is looked up in a drill."""
    if scenario_of(run) is not None:
        return None
    with run.state.connect() as conn:
        return AddressBook(run).reach(conn, record.incident.id)


def _many_unusable(run: IncidentRun, record: IncidentRecord, made: NoticePlan) -> bool:
    reach = _reach(run, record)
    if reach is None or not made.people:
        return False
    return reach.unusable > run.rules.letter.unusable_at_most * made.people


def _run(run: IncidentRun) -> tuple[str, str]:
    return run.run.dag_id, run.run.run_id


DECISION = human_task(
    STEP, _("The decision on notices"), ask, take, (TELL, DO_NOT_TELL), seals_document=True
)
