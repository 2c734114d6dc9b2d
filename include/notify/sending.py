"""The step that sends notifications, its result, and its section of the report.

The result is read from the state database, not from the delivery alone: a task that was killed and
repeated reports the same as one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings, StepResult, result_of
from include.messages import _
from include.notify.claims import Unsent
from include.notify.delivery import Delivery, Office, deliver
from include.notify.notice import IN_DOUBT, explained
from include.reports.model import Block, Columns, Paragraph, Section, table_of

STEP_SEND, SEND_TITLE = "send", _("The sending")
MOST_NAMED = 20  # recipients in one finding
MOST_KEPT = 500  # notices that the record has by name; the command line lists all

_SENT = text(
    """
    SELECT kind, count(*), count(DISTINCT recipient) FROM notice
    WHERE state = 'sent' AND settled_at >= :since GROUP BY kind ORDER BY kind
    """
)
_MESSAGES = text(
    "SELECT count(*) FROM notice_message WHERE state = 'sent' AND settled_at >= :since"
)
_UNSENT = text(
    """
    SELECT kind, recipient, cause FROM notice
    WHERE state = :state AND settled_at >= :since AND cause <> '' ORDER BY id
    """
)


class SentMessages(StepResult):
    """The messages that were sent since the run began, and notices that did not arrive.

    Attributes:
        messages: number of messages, those of other workflows in the same digests included.
        kinds: kind, number of notices and number of recipients of the sent notices.
        deferred: number of notices that are due and wait for another try.
        waiting: number of notices that wait for their time.
        undeliverable: notices that could not be sent, at most `MOST_KEPT`.
        undeliverable_count: number of all of them.
        in_doubt: notices that may have arrived, at most `MOST_KEPT`.
        in_doubt_count: number of all of them.
    """

    messages: int
    kinds: list[tuple[str, int, int]]
    deferred: int
    waiting: int
    undeliverable: list[Unsent]
    undeliverable_count: int
    in_doubt: list[Unsent]
    in_doubt_count: int


@dataclass(frozen=True)
class Sending:
    """A step's record, and whether it is worth another try soon.

    Attributes:
        again: why, in English for the task's log; empty where all that was due is settled.
    """

    record: StepRecord
    again: str = ""


def send(office: Office, since: datetime, clause: str, *, mail_is_caught: bool = False) -> Sending:
    """Deliver what is due and report the result.

    Args:
        office: what messages are sent with.
        since: when the run began; the result covers whatever was settled from then on.
        clause: of the policy that findings name.
        mail_is_caught: whether mail is written to files instead of being sent.

    Raises:
        UsageError: a channel is not configured, and something is to be sent by it.
    """
    done = deliver(office)
    findings = StepFindings(STEP_SEND, clause)
    with office.state.connect() as conn:
        kinds = [tuple(row) for row in conn.execute(_SENT, {"since": since})]
        messages = int(conn.scalar(_MESSAGES, {"since": since}) or 0)
        undeliverable = _unsent(conn, "undeliverable", since)
        in_doubt = _unsent(conn, "in_doubt", since)
    letters = frozenset(office.addresses)
    _tell_letters(findings, [notice for notice in undeliverable if notice.kind in letters])
    _tell_unsent(
        findings, [notice for notice in undeliverable if notice.kind not in letters], in_doubt
    )
    _tell_waiting(findings, done)
    _tell_in_hand(findings, done, office.zone)
    findings.measure("notices.sent", messages, "1")
    findings.measure("notices.deferred", done.deferred, "1")
    findings.measure("notices.undeliverable", len(undeliverable), "1")
    findings.measure("notices.in_doubt", len(in_doubt), "1")
    if mail_is_caught:
        report_caught_mail(findings, messages)
    result = SentMessages(
        messages=messages,
        kinds=kinds,
        deferred=done.deferred,
        waiting=done.waiting,
        undeliverable=undeliverable[:MOST_KEPT],
        undeliverable_count=len(undeliverable),
        in_doubt=in_doubt[:MOST_KEPT],
        in_doubt_count=len(in_doubt),
    )
    return Sending(findings.record(result), _again(done, office.zone))


def _unsent(conn: Connection, state: str, since: datetime) -> list[Unsent]:
    return [Unsent(*row) for row in conn.execute(_UNSENT, {"state": state, "since": since})]


def report_caught_mail(findings: StepFindings, messages: int) -> None:
    """Report mail that was written to files: a forgotten connection must not look like success."""
    if not messages:
        return
    findings.warn(
        "notices.local_only",
        _(
            "The connection mail leads to no mail server of yours: {count} messages were written "
            "to files, and nobody got them.",
            count=messages,
        ),
        _("Point the connection mail at your mail server: docs/connections.md."),
        subject="mail",
    )


def _tell_unsent(
    findings: StepFindings, undeliverable: Sequence[Unsent], in_doubt: Sequence[Unsent]
) -> None:
    for cause in sorted({notice.cause for notice in undeliverable}):
        recipients = _named([notice for notice in undeliverable if notice.cause == cause])
        findings.warn(
            "notices.undeliverable",
            _(
                "Notices that could not be sent ({cause}): {count}, for {recipients}.",
                cause=explained(cause),
                count=sum(notice.cause == cause for notice in undeliverable),
                recipients=recipients,
            ),
            _(
                "Correct the addresses where they are kept; then the next run tells them, or "
                "./parcelseal notices retry NUMBER does."
            ),
            subject=cause.partition(" ")[0],
        )
    if in_doubt:
        findings.warn(
            "notices.in_doubt",
            _(
                "Notices that may have arrived or not: {count}, for {recipients}.",
                count=len(in_doubt),
                recipients=_named(in_doubt),
            ),
            _("Ask them; where nothing came: ./parcelseal notices retry NUMBER."),
            subject=IN_DOUBT,
        )


def _tell_letters(findings: StepFindings, undeliverable: Sequence[Unsent]) -> None:
    """Report undeliverable letters to customers: without names, and no later run sends them."""
    for cause in sorted({notice.cause for notice in undeliverable}):
        findings.warn(
            "notices.letters_undeliverable",
            _(
                "Letters that could not be sent ({cause}): {count}.",
                cause=explained(cause),
                count=sum(notice.cause == cause for notice in undeliverable),
            ),
            _(
                "Tell these people otherwise, and enter that. Or correct their addresses, then "
                "./parcelseal notices retry NUMBER. Who they are: ./parcelseal notices list "
                "--state undeliverable."
            ),
            subject=f"letters:{cause.partition(' ')[0]}",
        )


def _named(unsent: Sequence[Unsent]) -> str:
    names = list(dict.fromkeys(notice.recipient for notice in unsent))
    return ", ".join(names[:MOST_NAMED]) + ("…" if len(names) > MOST_NAMED else "")


def _tell_waiting(findings: StepFindings, done: Delivery) -> None:
    for channel, code in sorted(done.down.items()):
        findings.warn(
            "notices.server_down",
            _("The server of {channel} could not be used ({code}).", channel=channel, code=code)
            if code
            else _("The server of {channel} could not be reached.", channel=channel),
            _("See that it runs and that its connection is right: docs/notices.md."),
            subject=channel,
        )
    for kind, error in sorted(done.unsure.items()):
        findings.warn(
            "notices.unsure",
            _(
                "Nobody could say which notices of {kind} are still wanted, or where they go "
                "({error}); they wait.",
                kind=kind,
                error=error,
            ),
            _("See that the database they are about can be reached."),
            subject=kind,
        )
    if done.deferred:
        findings.warn(
            "notices.deferred",
            _("Notices that are due and wait for another try: {count}.", count=done.deferred),
            _("Nothing is lost: the next run of any workflow that tells people sends them."),
        )


def _tell_in_hand(findings: StepFindings, done: Delivery, zone: ZoneInfo) -> None:
    if done.in_hand_until is not None:
        findings.warn(
            "notices.in_hand",
            _(
                "Another process has {count} messages in hand until {time}.",
                count=done.in_hand,
                time=_clock(done.in_hand_until, zone),
            ),
            _(
                "Where that one was killed, the next run of any workflow that tells people sends "
                "them after that time."
            ),
        )


def _clock(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%H:%M}"


def _again(done: Delivery, zone: ZoneInfo) -> str:
    if done.down:
        return f"The server of {' and '.join(sorted(done.down))} could not be used."
    if done.unsure:
        return f"Nobody could say which notices of {', '.join(sorted(done.unsure))} are wanted."
    if done.deferred:
        return "A server put messages off."
    if done.in_hand_until is not None:
        until = _clock(done.in_hand_until, zone)
        return f"Another process has {done.in_hand} messages in hand until {until}."
    return ""


def messages(record: StepRecord) -> Section:
    """Return the section "Messages" of a report.

    Args:
        record: of the step `send`; if that did not finish, the section says so.
    """
    sent = result_of(record, SentMessages)
    if sent is None:
        text = _("The step that sends did not finish; what was sent is told by the next run.")
        return Section(heading=_HEADING, blocks=[Paragraph(text=text)])
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "Messages sent since the run began, those of other workflows in the same digests "
                "included: {messages}. Notices that wait for their time: {waiting}; that are due "
                "and wait for another try: {deferred}.",
                messages=sent.messages,
                waiting=sent.waiting,
                deferred=sent.deferred,
            )
        )
    ]
    if sent.kinds:
        columns: Columns[tuple[str, int, int]] = (
            (_("Kind"), "code", lambda row: row[0]),
            (_("Notices"), "number", lambda row: row[1]),
            (_("Recipients"), "number", lambda row: row[2]),
        )
        blocks.append(table_of(_("Sent"), sent.kinds, columns))
    for caption, unsent, count in (
        (_("Could not be delivered"), sent.undeliverable, sent.undeliverable_count),
        (_("May have arrived or not"), sent.in_doubt, sent.in_doubt_count),
    ):
        if unsent:
            blocks.append(table_of(caption, unsent, _UNSENT_COLUMNS))
        if count > len(unsent):
            more = _("And {count} more: ./parcelseal notices list.", count=count - len(unsent))
            blocks.append(Paragraph(text=more))
    return Section(heading=_HEADING, blocks=blocks)


_HEADING = _("Messages")
_UNSENT_COLUMNS: Columns[Unsent] = (
    (_("Recipient"), "code", lambda notice: notice.recipient),
    (_("Kind"), "code", lambda notice: notice.kind),
    (_("Cause"), "text", lambda notice: explained(notice.cause)),
)
