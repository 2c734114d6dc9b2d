"""The human task to decide whether affected people are notified.

The author of the impact texts may not decide. Under PIPL (2021-11-01), article 57, no notification
is required if measures avoid the harm. A decision not to notify people needs reasons. A decision is
valid only for the notice text and the list of people whose digests it contains. A later decision
about the same text covers only people added to the list since. If the text changes, a new decision
covers all people to whom no notice was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from include.approvals import registry
from include.approvals.approvers import same_person
from include.approvals.form import Field
from include.approvals.registry import APPROVE, REJECT, Refusal, RefusalCause, Request
from include.approvals.required_action import Answer, RequiredAction, in_both_languages
from include.incident import incident_run, timeline
from include.incident.communication import notices
from include.incident.communication.addresses import AddressBook, Reach
from include.incident.communication.authority_report import sealed_document
from include.incident.communication.notice_text import create_notice_document
from include.incident.communication.notices import NoticePlan
from include.incident.entries import Decided
from include.incident.form import MAX_TEXT
from include.incident.incident_ids import INDIVIDUAL, UPDATES, Kind
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    record_in,
    scenario_of,
)
from include.incident.rules import NoticeRules
from include.incident.step_titles import HUMAN_STEP_TITLES
from include.incident.steps.task import (
    Answered,
    IncidentTask,
    StepAnswer,
    answered,
    append_answer,
    human_task,
)
from include.incident.team import answer_authors, team_of
from include.incident.time_limits import milestones
from include.incident.timeline import Entry, last_of, of_kind
from include.messages import Message, _, listed
from include.notify import outbox
from include.notify.notification import NO_LONGER_DUE
from include.notify.texts import NoticeText, text_digest
from include.services.errors import ControlFailed


def _notice_lines(notice: NoticeText) -> list[Message]:
    """Return the sections of the notice to affected people as display texts.

    Args:
        notice: text of the notice.
    """
    parts = [_("“{title}”: {text}", title=part.title, text=part.words) for part in notice.parts]
    return [_("Notice: {heading}", heading=notice.heading), notice.opening, *parts]


def _reach_lines(plan: NoticePlan, reach: Reach | None, rules: NoticeRules) -> list[Message]:
    """Return display texts about how many people can be notified by mail.

    Args:
        plan: plan of the notices.
        reach: numbers of people with and without a usable address; None in a drill.
        rules: rules for notices in incident.yaml.
    """
    lines = [
        _(
            "{people} people are affected; {new} of them have received no notice before.",
            people=plan.people,
            new=plan.new,
        )
    ]
    if reach is None:
        return [*lines, _("DRILL: no address was looked up.")]
    lines.append(
        _(
            "{usable} people have an e-mail address of their own, {without} have none, "
            "{malformed} have an invalid address, and {shared} share an address with at least "
            "{others} others.",
            usable=reach.usable,
            without=reach.without,
            malformed=reach.malformed,
            shared=reach.shared,
            others=rules.shared_by - 1,
        )
    )
    if _are_many_unreachable(reach, plan, rules):
        lines.append(
            _(
                "UNUSUALLY MANY people cannot be reached by mail. Check that the list of "
                "addresses is correct and tick the confirmation, or postpone the decision."
            )
        )
    return lines


TELL, DO_NOT_TELL = "Tell people", "Do not tell"
_REASON, _LOOKED = "reason", "list_looked_at"
_REFUSAL_CAUSES = {
    RefusalCause.NOBODY: _("the answer does not state who decided"),
    RefusalCause.OWN_REQUEST: _("the decision was made by the person who wrote the notice"),
    RefusalCause.NOT_ENTITLED: _("the person who answered has no right to decide"),
    RefusalCause.NO_REASON: _("the reasons are missing"),
    RefusalCause.DECIDED_BEFORE: _("another person has already decided"),
    RefusalCause.OTHER_CONTENT: _(
        "the notice or the list of people changed after the form was shown"
    ),
}


class Decision(IncidentTask):
    """The human task to decide whether affected people are notified.

    The author of the impact texts may not decide.
    """

    step = "decide"
    title = HUMAN_STEP_TITLES["decide"]
    choices = (TELL, DO_NOT_TELL)
    seals_document = True

    @property
    def _writers(self) -> list[str]:
        return sorted(answer_authors(self.record.entries, Kind.IMPACT))

    def form(self) -> list[Field]:
        """Return the form fields: the reasons, and a checkbox for the check of the mail addresses.

        By ticking the checkbox, a person confirms that the addresses were checked. This is required
        only if unusually many affected people have no usable mail address.
        """
        return [
            Field(
                name=_REASON,
                title=_("Reasons"),
                kind="long_text",
                required=True,
                max_length=MAX_TEXT,
            ),
            Field(
                name=_LOOKED,
                title=_("The list of addresses was checked and is correct"),
                help=_(
                    "Tick this field if unusually many people have no usable address; "
                    "otherwise it is not required."
                ),
                kind="yes_no",
            ),
        ]

    def content(self) -> str:
        """Return the digest of the content of the newest approval request about the notices.

        This content is what the person decides on. Return an empty text if there is no approval
        request.
        """
        with self.run.state.connect() as conn:
            request = registry.latest_request(conn, *self._about)
        return request.content if request else ""

    @property
    def _about(self) -> tuple[str, str, str, str]:
        return *_run_key(self.run), notices.APPROVAL, self.record.incident.number

    def ask(self) -> RequiredAction | None:
        """Ask a person to decide whether affected people are notified.

        The form shows the notice and the number of its recipients.
        """
        run, record = self.run, self.record
        action = self.dry_run()
        if action is None:
            return None
        categories = incident_run.require_scope(run, record.incident.id).categories
        document = create_notice_document(run, record, categories)
        # A changed text gets another file name, since the existing file may have been printed.
        name = f"notice-{text_digest(notices.current_notice_text(run, record))[:8]}"
        path = sealed_document(run, record, document, name)
        lines = [
            _("The notice as a document, for people who are notified on paper: {path}", path=path)
        ]
        if run.services.mail_is_caught():
            lines.append(
                _(
                    "WARNING: no mail server of the company is connected. The notices would be "
                    "written to files, and no person would receive them."
                )
            )
        body = "\n\n".join([action.body, *map(in_both_languages, lines)]) + "\n"
        return replace(action, body=body)

    def dry_run(self) -> RequiredAction | None:
        """Return the required action to decide on the notice and its recipients, or None.

        Unlike `ask`, this method seals no document. No decision is needed in three cases:
        no person is affected; a decision on this text and list of people is in force; or the run is
        an update, and there is no decision on the incident yet. In the last case, the first
        decision will cover everybody. If the decision in force is not to notify people, a person
        can reconsider it by clearing the task: the required action is then returned again.

        Raises:
            ControlFailed: a required section of the notice or the list of people is missing; the
                message names it.
        """
        run, record = self.run, self.record
        if run.run.dag_id == UPDATES and last_of(record.entries, Kind.DECIDED) is None:
            return None
        plan, unlisted = (
            notices.plan_notices(run, record),
            notices.databases_without_list(run, record),
        )
        standing = notices.standing_decision(record, plan)
        if standing is not None and not _asks_again(run, standing):
            return None
        if not plan.people:
            if unlisted:
                raise ControlFailed(
                    "There is no list of affected people yet. These databases could not be read: "
                    f"{', '.join(unlisted)}.",
                    "Restore the connection, clear the tasks `assess` and `preserve`, then this.",
                )
            notices.record_nobody_affected(run, record, plan)
            return None
        plan = notices.plan_reconsideration(record, plan)
        with run.state.begin() as conn:
            request = notices.request_decision(conn, run, plan, self._writers)
        lines = [
            *_before_lines(record, plan),
            _(
                "No notice has been sent yet. This is the text of the notice, and these are its "
                "recipients:"
            )
            if plan.new == plan.people
            else _("This is the text of the notice, and these are its recipients:"),
            *_unlisted_lines(unlisted),
            *_reach_lines(plan, _reach(run, record), run.rules.letter),
            *_notice_lines(notices.current_notice_text(run, record)),
            _(
                "Your decision is valid only for this text and this list: SHA-256 {sha256}",
                sha256=plan.sha256,
            ),
            _(
                "People need not be notified if measures effectively prevent harm. The "
                "authorities receive a report in any case."
            ),
        ]
        title = _("decide whether to notify {count} affected people", count=plan.covers)
        return self.required_action(title, lines, request.content, self._writers)

    def record_answer(self, answer: Answer) -> Answered:
        """Record the decision as an approval and on the timeline, in one transaction.

        The answer is refused in four cases: reasons are missing; the checkbox for the mail
        addresses is required and not ticked; the text or the list changed after the request; or
        another person has decided.
        """
        run, record = self.run, self.record
        if answer.at is not None:
            with run.state.connect() as conn:
                if (entry := self.entered(conn, answer.at)) is not None:
                    return answered(entry)
        step_answer = self.read(answer, self._writers)
        if not step_answer.has_text(_REASON):
            step_answer.refuse(_("the reasons contain no text"))
        try:
            plan = notices.plan_notices(run, record)
        except ControlFailed as error:
            step_answer.refuse(notices.reason_text(error))
        if answer.option == TELL and not step_answer.is_ticked(_LOOKED):
            reach = _reach(run, record)
            if reach is not None and _are_many_unreachable(reach, plan, run.rules.letter):
                step_answer.refuse(
                    _(
                        "too many people have no usable address: check the list of addresses "
                        "and tick the confirmation"
                    )
                )
        result = self._decide(step_answer)
        if isinstance(result, Message):
            step_answer.refuse(result)
        return result

    def _decide(self, step_answer: StepAnswer) -> Answered | Message:
        """Record the decision, or return the reason why the answer is refused.

        Other decisions on the incident wait until the transaction of this method ends.
        """
        run, answer = self.run, step_answer.answer
        may_decide = team_of(run, self.record, self.step, self._writers).people
        with run.state.begin() as conn:
            timeline.lock_incident(conn, self.record.incident.id)
            record = record_in(conn, self.record.incident.number)
            if (entry := self.entered(conn, step_answer.at)) is not None:
                return answered(entry)
            current = notices.plan_notices(run, record)
            plan = notices.plan_reconsideration(record, current)
            request = registry.find_request(conn, *self._about, plan.sha256)
            if request is None or request.content != answer.content:
                return _change_reason(record, current, registry.latest_request(conn, *self._about))
            if (
                notices.standing_decision(record, current) is not None
                and not plan.reconsidered_sha256
            ):
                return _("another decision was recorded after the form was shown")
            earlier_decision = registry.decision_on(conn, request.id)
            if earlier_decision is None:
                decision = registry.decide(
                    conn,
                    request,
                    decision=APPROVE if answer.option == TELL else REJECT,
                    reason=step_answer.text(_REASON),
                    decided_by=step_answer.user,
                    decided_at=step_answer.at,
                    may_decide=may_decide,
                    content=answer.content,
                )
                if isinstance(decision, Refusal):
                    return _(
                        "the decision was not accepted: {cause}",
                        cause=_REFUSAL_CAUSES[decision.cause],
                    )
                return self._write(
                    conn, record, plan, request, decision, answer.option, step_answer.at
                )
            # A process that was killed has recorded this decision, so the answer is ignored.
            option = TELL if earlier_decision.approved else DO_NOT_TELL
            result = self._write(
                conn, record, plan, request, earlier_decision, option, earlier_decision.decided_at
            )
            if (
                same_person(earlier_decision.decided_by, step_answer.user)
                and option == answer.option
            ):
                return result
        return _(
            "{person} made the decision earlier: {option}",
            person=earlier_decision.decided_by,
            option=option,
        )

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
        """Record a decision on the timeline.

        If the notice text has changed since the previous decision, withdraw the waiting notices.

        Args:
            conn: connection to the state database, in a transaction.
            record: incident with its timeline.
            plan: plan of the notices that was decided on.
            request: approval request for the plan.
            decision: decision on the approval request.
            option: id of the answer that the person chose.
            at: time of the answer.
        """
        decisions = milestones.decisions_on_last_notice(record.entries)
        if decisions and milestones.notice_digests_of(decisions[-1]) != (
            plan.text_sha256,
            plan.impact_entry_sha256,
        ):
            prefix = f"{record.incident.number}/"
            outbox.withdraw_by_prefix(conn, INDIVIDUAL, prefix, NO_LONGER_DUE, self.run.clock.now())
        data = {"tell": decision.approved, "sha256": plan.sha256, "bound": plan.bound_data}
        data |= {"request": request.id, "people": plan.people, "version": plan.version}
        data |= {"adds_to": plan.adds_to, "covers": plan.covers}
        return append_answer(
            conn,
            self,
            option,
            Kind.DECIDED,
            _decision_text(plan, decision),
            by=decision.decided_by,
            at=at,
            data=data,
        )


def _decision_text(plan: NoticePlan, decision: registry.Decision) -> Message:
    count, reason = plan.covers, decision.reason
    if plan.adds_to is not None:
        if decision.approved:
            return _(
                "{count} more affected people are to be notified. {reason}",
                count=count,
                reason=reason,
            )
        return _(
            "{count} more affected people are not to be notified. {reason}",
            count=count,
            reason=reason,
        )
    if decision.approved:
        return _("{count} affected people are to be notified. {reason}", count=count, reason=reason)
    return _("It was decided not to notify affected people. Reason: {reason}", reason=reason)


def _change_reason(record: IncidentRecord, plan: NoticePlan, request: Request | None) -> Message:
    standing = notices.standing_decision(record, plan)
    if standing is not None and (request is None or standing.as_(Decided).request != request.id):
        return _("another decision was recorded after the form was shown")
    return _("the notice or the list of affected people changed: review both again")


def _asks_again(run: IncidentRun, standing: Entry) -> bool:
    """Return whether the current run asks a person to reconsider the decision in force.

    Only a decision not to notify people is reconsidered. A run of `update_incident` asks only if
    that run had requested the decision.

    Args:
        run: services and rules of the current run or command.
        standing: timeline entry of the decision in force.
    """
    decided = standing.as_(Decided)
    if decided.tell or decided.request is None:
        return False
    if run.run.dag_id != UPDATES:
        return True
    with run.state.connect() as conn:
        request = registry.load_request(conn, decided.request)
    return (request.dag_id, request.run_id) == _run_key(run)


def _before_lines(record: IncidentRecord, plan: NoticePlan) -> list[Message]:
    """Return display texts about earlier decisions, and about the scope of the new decision.

    The scope consists of the affected people for whom a decision is still needed. There is no text
    about it before the first decision, which covers all affected people.

    Args:
        record: incident with its timeline.
        plan: plan of the notices.
    """
    decided = of_kind(record.entries, Kind.DECIDED)
    lines = [
        _("Decision at {at}: {entry}", at=entry.happened_at, entry=entry.words) for entry in decided
    ]
    if plan.adds_to is not None:
        lines.append(
            _("Decide only on the {count} people who were added to the list after the decision "
              "above. That decision remains valid for the other people.", count=plan.covers)
        )  # fmt: skip
    elif decided:
        lines.append(
            _(
                "Decide again whether to notify the affected people to whom no notice was "
                "sent. The new decision replaces the earlier one."
            )
        )
    return lines


def _unlisted_lines(databases: Sequence[str]) -> list[Message]:
    if not databases:
        return []
    names = listed(databases)
    return [
        _(
            "NOT ON THE LIST: affected people in {databases}, because these databases could "
            "not be read. When these people are known, a separate decision on them is "
            "requested.",
            databases=names,
        )
    ]


def _reach(run: IncidentRun, record: IncidentRecord) -> Reach | None:
    """Count people with and without a usable mail address. Return None in a drill."""
    if scenario_of(run) is not None:
        return None
    with run.state.connect() as conn:
        return AddressBook(run).reach(conn, record.incident.id)


def _are_many_unreachable(reach: Reach, plan: NoticePlan, rules: NoticeRules) -> bool:
    """Return whether the share of people without a usable address exceeds the policy's maximum.

    Args:
        reach: numbers of people with and without a usable address.
        plan: plan of the notices.
        rules: rules for notices in incident.yaml.
    """
    return plan.people > 0 and reach.unusable > rules.unusable_at_most * plan.people


def _run_key(run: IncidentRun) -> tuple[str, str]:
    return run.run.dag_id, run.run.run_id


DECISION = human_task(Decision)
