"""The step that sends notifications, its result, and its section of the report.

The result is read from the state database. A repeated task therefore reports all messages of the
run, including those that an interrupted attempt sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from pydantic import Field
from sqlalchemy import Connection, text

from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings, StepResult, result_of
from include.messages import Message, _, listed, verbatim
from include.notify.claims import UnsentNotification
from include.notify.delivery import DeliveryConfig, DeliveryResult, deliver
from include.notify.notification import IN_DOUBT, explain_cause
from include.reports.model import Block, Columns, Paragraph, Section, table_of

STEP_SEND, SEND_TITLE = "send", _("Sending of messages")
_SERVERS: Mapping[str, Message] = {
    "mail": _("mail server"),
    "robot": _("server of the chat robot"),
}
_CHANNELS: Mapping[str, Message] = {"mail": _("Mail server"), "robot": _("Chat robot")}
_RETRY = _("Send a notification again: `./parcelseal notices retry NUMBER`.")
MAX_NAMED = 20  # recipients in a finding
MAX_RECORDED = 500  # notifications in the record; the command line lists all

_SENT = text(
    """
    SELECT kind, count(*), count(DISTINCT recipient) FROM notification
    WHERE state = 'sent' AND settled_at >= :since GROUP BY kind ORDER BY kind
    """
)
_MESSAGES = text(
    "SELECT count(*) FROM notification_message WHERE state = 'sent' AND settled_at >= :since"
)
_UNSENT = text(
    """
    SELECT kind, recipient, cause FROM notification
    WHERE state = :state AND settled_at >= :since AND cause <> '' ORDER BY id
    """
)

_CODES_WITHOUT_MESSAGES = (
    "notices.deferred",
    "notices.in_doubt",
    "notices.in_hand",
    "notices.letters_undeliverable",
    "notices.server_down",
    "notices.undeliverable",
    "notices.unsure",
)
"""Codes of findings that the step examines even if it sends no message."""


class SentMessages(StepResult):
    """The messages that were sent since the run began, and the notifications that did not arrive.

    Attributes:
        messages: number of messages, including digests that contain notifications of other
            workflows.
        kinds: for each kind of notification: the kind, the number of sent notifications and the
            number of their recipients.
        deferred: number of notifications that are due and wait for a retry.
        waiting: number of notifications that are not due yet.
        undeliverable: notifications that could not be sent, at most `MAX_RECORDED`.
        undeliverable_count: number of all notifications that could not be sent.
        in_doubt: notifications that may have arrived, at most `MAX_RECORDED`.
        in_doubt_count: number of all notifications that may have arrived.
        titles: kind of notification -> display name.
    """

    messages: int
    kinds: list[tuple[str, int, int]]
    deferred: int
    waiting: int
    undeliverable: list[UnsentNotification]
    undeliverable_count: int
    in_doubt: list[UnsentNotification]
    in_doubt_count: int
    titles: Mapping[str, Message] = Field(default_factory=dict)


@dataclass(frozen=True)
class Sending:
    """The record of the step that sends notifications, and whether its task has to be retried.

    Attributes:
        record: record of the step.
        retry_reason: reason why the task has to be retried, for the task's log, in English; empty
            if no retry is needed.
    """

    record: StepRecord
    retry_reason: str = ""


def send(
    config: DeliveryConfig, since: datetime, clause: str, *, mail_is_caught: bool = False
) -> Sending:
    """Deliver due messages, and report which messages were sent and which notifications were not.

    Args:
        config: delivery configuration.
        since: start of the run. The result covers all notifications that were sent or given up
            since then.
        clause: policy clause of the findings.
        mail_is_caught: whether mail is written to files instead of being sent.

    Raises:
        UsageError: a channel with due messages is not configured.
    """
    delivery = deliver(config)
    findings = StepFindings(STEP_SEND, clause, title=SEND_TITLE)
    with config.state.connect() as conn:
        kinds = [tuple(row) for row in conn.execute(_SENT, {"since": since})]
        messages = int(conn.scalar(_MESSAGES, {"since": since}) or 0)
        undeliverable = _unsent(conn, "undeliverable", since)
        in_doubt = _unsent(conn, "in_doubt", since)
    notices = frozenset(config.addresses)
    _report_undelivered_notices(
        findings, [notification for notification in undeliverable if notification.kind in notices]
    )
    _report_unsent(
        findings,
        [notification for notification in undeliverable if notification.kind not in notices],
        in_doubt,
    )
    _report_waiting(findings, delivery, config.titles)
    _report_in_hand(findings, delivery, config.zone)
    findings.measure("notices.sent", messages, "1")
    findings.measure("notices.deferred", delivery.deferred, "1")
    findings.measure("notices.undeliverable", len(undeliverable), "1")
    findings.measure("notices.in_doubt", len(in_doubt), "1")
    if mail_is_caught:
        report_caught_mail(findings, messages)
    result = SentMessages(
        messages=messages,
        kinds=kinds,
        deferred=delivery.deferred,
        waiting=delivery.waiting,
        undeliverable=undeliverable[:MAX_RECORDED],
        undeliverable_count=len(undeliverable),
        in_doubt=in_doubt[:MAX_RECORDED],
        in_doubt_count=len(in_doubt),
        titles=config.titles,
    )
    return Sending(findings.record(result), _retry_reason(delivery, config.zone))


def _title_of(kind: str, titles: Mapping[str, Message]) -> Message:
    """Return the display name of a kind of notification.

    If no workflow declares a display name, the name of the kind itself is returned.
    """
    return titles.get(kind) or verbatim(kind)


def _unsent(conn: Connection, state: str, since: datetime) -> list[UnsentNotification]:
    return [
        UnsentNotification(*row) for row in conn.execute(_UNSENT, {"state": state, "since": since})
    ]


def report_caught_mail(findings: StepFindings, messages: int) -> None:
    """Report that mail was written to files because no mail server of the company is connected.

    Args:
        findings: findings of the step.
        messages: number of messages that were written to files. If it is 0, nothing is reported,
            and an earlier finding remains open.
    """
    if not messages:
        findings.examine_only((), _CODES_WITHOUT_MESSAGES)
        return
    findings.subject_titles["mail"] = _CHANNELS["mail"]
    findings.warn(
        "notices.local_only",
        _(
            "No mail server of the company is connected. {count} messages were written to "
            "files, and no person received them.",
            count=messages,
        ),
        _("Ask the data engineers to connect the company's mail server."),
        subject="mail",
        for_engineers=_(
            "The connection `mail` leads to no mail server; see docs/reference/connections.md."
        ),
    )


def _report_unsent(
    findings: StepFindings,
    undeliverable: Sequence[UnsentNotification],
    in_doubt: Sequence[UnsentNotification],
) -> None:
    for cause in sorted({notification.cause for notification in undeliverable}):
        recipients = _list_recipients(
            [notification for notification in undeliverable if notification.cause == cause]
        )
        findings.warn(
            "notices.undeliverable",
            _(
                "{count} notifications could not be sent ({cause}); recipients: {recipients}.",
                cause=explain_cause(cause),
                count=sum(notification.cause == cause for notification in undeliverable),
                recipients=recipients,
            ),
            _(
                "Correct the addresses in the register or staff list that contains them. The "
                "next run then sends the notifications."
            ),
            subject=cause.partition(" ")[0],
            for_engineers=_RETRY,
        )
    if in_doubt:
        findings.warn(
            "notices.in_doubt",
            _(
                "The delivery of {count} notifications could not be confirmed; recipients: "
                "{recipients}.",
                count=len(in_doubt),
                recipients=_list_recipients(in_doubt),
            ),
            _(
                "Ask the recipients whether they received the notifications. Have the data "
                "engineers send missing ones again."
            ),
            subject=IN_DOUBT,
            for_engineers=_RETRY,
        )


def _report_undelivered_notices(
    findings: StepFindings, undeliverable: Sequence[UnsentNotification]
) -> None:
    """Report notices to data subjects that could not be sent, by reason and without names.

    No later run sends these notices. A person has to notify the data subjects in another way.

    Args:
        findings: findings of the step.
        undeliverable: notices that could not be sent.
    """
    for cause in sorted({notification.cause for notification in undeliverable}):
        findings.warn(
            "notices.letters_undeliverable",
            _(
                "{count} notices to data subjects could not be sent ({cause}).",
                cause=explain_cause(cause),
                count=sum(notification.cause == cause for notification in undeliverable),
            ),
            _(
                "Notify these data subjects in another way and record this, or correct their "
                "addresses and have the data engineers send the notices again."
            ),
            subject=f"letters:{cause.partition(' ')[0]}",
            for_engineers=_(
                "List the recipients: `./parcelseal notices list --state undeliverable`. Send "
                "a notice again: `./parcelseal notices retry NUMBER`."
            ),
        )


def _list_recipients(notifications: Sequence[UnsentNotification]) -> Message:
    names = list(dict.fromkeys(notification.recipient for notification in notifications))
    more = ["…"] if len(names) > MAX_NAMED else []
    return listed([*names[:MAX_NAMED], *more])


def _report_waiting(
    findings: StepFindings, delivery: DeliveryResult, titles: Mapping[str, Message]
) -> None:
    for channel, code in sorted(delivery.unusable_channels.items()):
        findings.subject_titles[channel] = _CHANNELS[channel]
        findings.warn(
            "notices.server_down",
            _("The {server} could not be used ({code}).", server=_SERVERS[channel], code=code)
            if code
            else _("The {server} could not be reached.", server=_SERVERS[channel]),
            _(
                "Ask the data engineers to check that the server is running and that its "
                "connection is correct."
            ),
            subject=channel,
            for_engineers=_(
                "Check the connection of the channel `{channel}`; see docs/explanation/notices.md.",
                channel=channel,
            ),
        )
    for kind, error in sorted(delivery.unavailable_kinds.items()):
        title = _title_of(kind, titles)
        findings.subject_titles[kind] = title
        findings.warn(
            "notices.unsure",
            _(
                "Notifications of this type are delayed: {kind}. ParcelSeal could not confirm "
                "that they are still required, or could not look up the addresses of their "
                "recipients.",
                kind=title,
            ),
            _(
                "Ask the data engineers to check that the database of these notifications can be "
                "reached."
            ),
            subject=kind,
            for_engineers=_(
                "Error for the notification type `{kind}`: `{error}`.", kind=kind, error=error
            ),
        )
    if delivery.deferred:
        findings.warn(
            "notices.deferred",
            _(
                "{count} notifications are due, but could not be sent yet.",
                count=delivery.deferred,
            ),
            _(
                "No action is required. The next run of any workflow that sends notifications "
                "also tries to send these."
            ),
        )


def _report_in_hand(findings: StepFindings, delivery: DeliveryResult, zone: ZoneInfo) -> None:
    if delivery.sent_by_others_until is not None:
        findings.warn(
            "notices.in_hand",
            _(
                "Another process has reserved {count} messages and has until {time} to send them.",
                count=delivery.sent_by_others,
                time=_clock(delivery.sent_by_others_until, zone),
            ),
            _(
                "Wait until that time. If that process was killed, the next run of any "
                "workflow that sends notifications sends these messages."
            ),
        )


def _clock(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%H:%M}"


def _retry_reason(delivery: DeliveryResult, zone: ZoneInfo) -> str:
    if delivery.unusable_channels:
        return (
            f"The server of {' and '.join(sorted(delivery.unusable_channels))} could not be used."
        )
    if delivery.unavailable_kinds:
        kinds = ", ".join(sorted(delivery.unavailable_kinds))
        return f"It is unknown which notifications of {kinds} are still due."
    if delivery.deferred:
        return "A server deferred messages."
    if delivery.sent_by_others_until is not None:
        until = _clock(delivery.sent_by_others_until, zone)
        return (
            f"Another process has reserved {delivery.sent_by_others} messages and has until "
            f"{until} to send them."
        )
    return ""


def messages_section(record: StepRecord) -> Section:
    """Return the section "Messages" of a report.

    Args:
        record: record of the step `send`. If the step did not finish, the section says that it did
            not finish.
    """
    sent = result_of(record, SentMessages)
    if sent is None:
        text = _(
            "The sending step did not finish. The report of the next run lists the messages "
            "that were sent."
        )
        return Section(heading=_HEADING, blocks=[Paragraph(text=text)])
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "Messages sent since the run started: {messages}. They may also contain "
                "notifications of other workflows. Notifications that are not due yet: "
                "{waiting}. Notifications that are due but could not be sent yet: {deferred}.",
                messages=sent.messages,
                waiting=sent.waiting,
                deferred=sent.deferred,
            )
        )
    ]
    if sent.kinds:
        columns: Columns[tuple[str, int, int]] = (
            (_("Kind"), "text", lambda row: _title_of(row[0], sent.titles)),
            (_("Notifications"), "number", lambda row: row[1]),
            (_("Recipients"), "number", lambda row: row[2]),
        )
        blocks.append(table_of(_("Notifications sent"), sent.kinds, columns))
    for caption, unsent, count in (
        (
            _("Notifications that could not be delivered"),
            sent.undeliverable,
            sent.undeliverable_count,
        ),
        (_("Notifications whose delivery is not confirmed"), sent.in_doubt, sent.in_doubt_count),
    ):
        if unsent:
            blocks.append(table_of(caption, unsent, _unsent_columns(sent)))
        if count > len(unsent):
            more = _(
                "{count} more notifications are not shown here; the data engineers can list them.",
                count=count - len(unsent),
            )
            blocks.append(Paragraph(text=more))
    return Section(heading=_HEADING, blocks=blocks)


_HEADING = _("Messages")


def _unsent_columns(sent: SentMessages) -> Columns[UnsentNotification]:
    return (
        (_("Message recipient"), "code", lambda notification: notification.recipient),
        (_("Kind"), "text", lambda notification: _title_of(notification.kind, sent.titles)),
        (_("Cause"), "text", lambda notification: explain_cause(notification.cause)),
    )
