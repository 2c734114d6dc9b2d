"""Decide whether affected people are notified; another person than the impact's author decides.

The law requires no notification if measures avoid the harm (PIPL (2021-11-01) 57). That is a
decision with reasons too. A decision is bound by digest to the words of the letter and to the list
of people. A later decision on the same words covers only the
people who were added since; if the words changed, it covers everybody to whom nothing was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from include.approvals import registry
from include.approvals.form import Field
from include.approvals.people import same_person
from include.approvals.question import Answer, Question, in_both
from include.approvals.registry import APPROVE, REJECT, Refusal, Request
from include.incident import incident_run, timeline
from include.incident.clocks import milestones
from include.incident.entries import Decided
from include.incident.form import LONGEST
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    record_in,
    scenario_of,
)
from include.incident.names import INDIVIDUAL, UPDATES, Kind
from include.incident.rules import Letter
from include.incident.steps.task import (
    Answered,
    IncidentTask,
    StepAnswer,
    answered,
    append_answer,
    human_task,
)
from include.incident.team import team_of, who_answered
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook, Reach
from include.incident.telling.authority_report import sealed_document
from include.incident.telling.letter import letter_document
from include.incident.telling.notifying import NoticePlan
from include.incident.timeline import Entry, last_of, of_kind
from include.messages import Message, _, listed, verbatim
from include.notify import outbox
from include.notify.notice import NOT_WANTED
from include.notify.texts import LetterText, digest
from include.services.errors import ControlFailed


def _letter_lines(letter: LetterText) -> list[Message]:
    """Return the letter as it would be sent, part by part."""
    parts = [_("“{title}”: {words}", title=part.title, words=part.words) for part in letter.parts]
    return [_("The letter: {heading}", heading=letter.heading), letter.opening, *parts]


def _reach_lines(plan: NoticePlan, reach: Reach | None, rules: Letter) -> list[Message]:
    """Return how many people the letter would reach; no `reach` in a drill."""
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
    if _is_many(reach, plan, rules):
        lines.append(
            _(
                "UNUSUALLY MANY cannot be reached by mail: is this the right list? Tick that it "
                "was looked at, or do not tell yet."
            )
        )
    return lines


TELL, DO_NOT_TELL = "Tell people", "Do not tell"
_REASON, _LOOKED = "reason", "list_looked_at"


class Decision(IncidentTask):
    """The decision whether affected people are told, by another person than the impact's author."""

    step = "decide"
    title = _("The decision on notices")
    choices = (TELL, DO_NOT_TELL)
    seals_document = True

    @property
    def _writers(self) -> list[str]:
        return sorted(who_answered(self.record.entries, Kind.IMPACT))

    def form(self) -> list[Field]:
        """Return the fields of reasons, and that the list of addresses was looked at."""
        return [
            Field(
                name=_REASON, title=_("Reasons"), kind="long_text", required=True, longest=LONGEST
            ),
            Field(
                name=_LOOKED,
                title=_("The list of addresses was looked at and is the right one"),
                help=_("Needed where unusually many people have no usable address."),
                kind="yes_no",
            ),
        ]

    def content(self) -> str:
        """Return the content of the request for approval; empty before the first question."""
        with self.run.state.connect() as conn:
            request = registry.request_of(conn, *self._about)
        return request.content if request else ""

    @property
    def _about(self) -> tuple[str, str, str, str]:
        return *_key(self.run), notifying.APPROVAL, self.record.incident.number

    def ask(self) -> Question | None:
        """Decide whether affected people are told; shows the letter and the dry run."""
        run, record = self.run, self.record
        question = self.dry_run()
        if question is None:
            return None
        categories = incident_run.require_scope(run, record.incident.id).categories
        document = letter_document(run, record, categories)
        # Other words are another document: what somebody may have printed is not made anew.
        name = f"notice-{digest(notifying.text_of(run, record))[:8]}"
        path = sealed_document(run, record, document, name)
        lines = [_("The letter as a document, for those who are told on paper: {path}", path=path)]
        if run.services.mail_is_caught():
            lines.append(
                _(
                    "WARNING: the connection mail leads to no mail server of yours. Letters would "
                    "be written to files, and nobody would get them."
                )
            )
        body = "\n\n".join([question.body, *map(in_both, lines)]) + "\n"
        return replace(question, body=body)

    def dry_run(self) -> Question | None:
        """Return the question with the dry run; None if a decision stands for just these people.

        That people are not told may be decided anew: the step asks whenever it is cleared. If
        nobody is affected, or an addition comes before the first decision, which will be about
        all, nobody is asked either.

        Raises:
            ControlFailed: a part of the letter is missing, or there is no list of people at all; it
                is named.
        """
        run, record = self.run, self.record
        if run.run.dag_id == UPDATES and last_of(record.entries, Kind.DECIDED) is None:
            return None
        plan, unlisted = notifying.plan(run, record), notifying.not_listed(run, record)
        before = notifying.stands(record, plan)
        if before is not None and not _asks_again(run, before):
            return None
        if not plan.people:
            if unlisted:
                raise ControlFailed(
                    "There is no list of affected people yet: nothing was read in "
                    f"{', '.join(unlisted)}.",
                    "Make it reachable, clear the tasks `assess` and `preserve`, then this one.",
                )
            notifying.nobody(run, record, plan)
            return None
        plan = notifying.reconsidered(record, plan)
        with run.state.begin() as conn:
            request = notifying.request(conn, run, plan, self._writers)
        lines = [
            *_before_lines(record, plan),
            _("Nothing has been sent. This is what would be sent, and to whom:")
            if plan.new == plan.people
            else _("This is what would be sent, and to whom:"),
            *_unlisted_lines(unlisted),
            *_reach_lines(plan, _reach(run, record), run.rules.letter),
            *_letter_lines(notifying.text_of(run, record)),
            _(
                "Your decision is bound to these words and this list: SHA-256 {sha}",
                sha=plan.sha256,
            ),
            _("People need not be told where measures avoid the harm; authorities are anyway."),
        ]
        title = _("decide whether {count} people are told", count=plan.covers)
        return self.question(title, lines, request.content, self._writers)

    def take(self, answer: Answer) -> Answered:
        """Enter the decision in the registry and on the timeline, both or neither.

        It is refused without reasons, if the list was not looked at, if words or list changed since
        the question, or if another person decided meanwhile.
        """
        run, record = self.run, self.record
        if answer.at is not None:
            with run.state.connect() as conn:
                if (entry := self.entered(conn, answer.at)) is not None:
                    return answered(entry)
        given = self.read(answer, self._writers)
        if not given.says(_REASON):
            given.refuse(_("the reasons say nothing"))
        try:
            plan = notifying.plan(run, record)
        except ControlFailed as error:
            given.refuse(_("{words}", words=error.message))
        if answer.option == TELL and not given.ticked(_LOOKED):
            reach = _reach(run, record)
            if reach is not None and _is_many(reach, plan, run.rules.letter):
                given.refuse(
                    _("too many people have no usable address: look at the list, and say so")
                )
        result = self._decide(given)
        if isinstance(result, Message):
            given.refuse(result)
        return result

    def _decide(self, given: StepAnswer) -> Answered | Message:
        """Enter the decision, or return why it does not count.

        Other deciders wait until then, and so do additions to the timeline.
        """
        run, answer = self.run, given.answer
        may_decide = team_of(run, self.record, self.step, self._writers).people
        with run.state.begin() as conn:
            timeline.lock_incident(conn, self.record.incident.id)
            record = record_in(conn, self.record.incident.number)
            if (entry := self.entered(conn, given.at)) is not None:
                return answered(entry)
            current = notifying.plan(run, record)
            plan = notifying.reconsidered(record, current)
            request = registry.request_about(conn, *self._about, plan.sha256)
            if request is None or request.content != answer.content:
                return _changed(record, current, registry.request_of(conn, *self._about))
            if notifying.stands(record, current) is not None and not plan.again:
                return _("it was decided elsewhere meanwhile")
            kept = registry.decision_on(conn, request.id)
            if kept is None:
                decision = registry.decide(
                    conn,
                    request,
                    decision=APPROVE if answer.option == TELL else REJECT,
                    reason=given.text(_REASON),
                    decided_by=given.user,
                    decided_at=given.at,
                    may_decide=may_decide,
                    content=answer.content,
                )
                if isinstance(decision, Refusal):
                    return _("it was not accepted: {cause}", cause=str(decision.cause))
                return self._write(conn, record, plan, request, decision, answer.option, given.at)
            # A process that was killed took this decision before: it counts, not the answer.
            option = TELL if kept.approved else DO_NOT_TELL
            result = self._write(conn, record, plan, request, kept, option, kept.decided_at)
            if same_person(kept.decided_by, given.user) and option == answer.option:
                return result
        return _("it was decided before, by {who}: {option}", who=kept.decided_by, option=option)

    def _write(
        self,
        conn: Connection,
        record: IncidentRecord,
        plan: NoticePlan,
        request: Request,
        decision: registry.Decision,
        option: str,
        at: datetime,
    ) -> Answered:
        """Enter a decision, and withdraw letters with words that are decided on no more."""
        before = milestones.on_last_words(record.entries)
        if before and milestones.words_of(before[-1]) != (plan.text_sha256, plan.words_sha256):
            prefix = f"{record.incident.number}/"
            outbox.withdraw_alike(conn, INDIVIDUAL, prefix, NOT_WANTED, self.run.clock.now())
        data = {"tell": decision.approved, "sha256": plan.sha256, "bound": plan.bound}
        data |= {"request": request.id, "people": plan.people, "version": plan.version}
        data |= {"adds_to": plan.adds_to, "covers": plan.covers}
        return append_answer(
            conn, self, option, Kind.DECIDED, _said(plan, decision), by=decision.decided_by, at=at,
            data=data,
        )  # fmt: skip


def _said(plan: NoticePlan, decision: registry.Decision) -> Message:
    count, reason = plan.covers, decision.reason
    if plan.adds_to is not None:
        if decision.approved:
            return _("{count} more affected people are told. {reason}", count=count, reason=reason)
        return _("{count} more affected people are not told. {reason}", count=count, reason=reason)
    if decision.approved:
        return _("{count} affected people are told. {reason}", count=count, reason=reason)
    return _("Affected people are not told. {reason}", reason=reason)


def _changed(record: IncidentRecord, plan: NoticePlan, asked: Request | None) -> Message:
    decided = notifying.stands(record, plan)
    if decided is not None and (asked is None or decided.as_(Decided).request != asked.id):
        return _("it was decided elsewhere meanwhile")
    return _("words or list changed: look again")


def _asks_again(run: IncidentRun, before: Entry) -> bool:
    """Return whether a cleared step asks for a decision that stands anew.

    A decision to tell people is not asked for. An addition asks if its step made the decision.
    """
    decided = before.as_(Decided)
    if decided.tell or decided.request is None:
        return False
    if run.run.dag_id != UPDATES:
        return True
    with run.state.connect() as conn:
        request = registry.request(conn, decided.request)
    return (request.dag_id, request.run_id) == _key(run)


def _before_lines(record: IncidentRecord, plan: NoticePlan) -> list[Message]:
    """Return the earlier decisions, and which of them stand."""
    decided = of_kind(record.entries, Kind.DECIDED)
    lines = [
        _("Decided {at}: {words}", at=entry.happened_at, words=entry.words) for entry in decided
    ]
    if plan.adds_to is not None:
        lines.append(
            _("Decide on the {count} people who came to the list since; what was decided on the "
              "others stands.", count=plan.covers)
        )  # fmt: skip
    elif decided:
        lines.append(_("Decide anew, on everybody to whom nothing was sent: the last one counts."))
    return lines


def _unlisted_lines(databases: Sequence[str]) -> list[Message]:
    if not databases:
        return []
    names = listed([verbatim(database) for database in databases])
    return [
        _(
            "NOT ON THE LIST: people of {databases}, in which nobody could read. A decision of its "
            "own is asked for once they are found.",
            databases=names,
        )
    ]


def _reach(run: IncidentRun, record: IncidentRecord) -> Reach | None:
    """Return how many people can be reached; None in a drill, which looks nobody up."""
    if scenario_of(run) is not None:
        return None
    with run.state.connect() as conn:
        return AddressBook(run).reach(conn, record.incident.id)


def _is_many(reach: Reach, plan: NoticePlan, rules: Letter) -> bool:
    """Return whether unusually many people have no usable address."""
    return plan.people > 0 and reach.unusable > rules.unusable_at_most * plan.people


def _key(run: IncidentRun) -> tuple[str, str]:
    return run.run.dag_id, run.run.run_id


DECISION = human_task(Decision)
