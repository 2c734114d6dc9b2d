"""Claim due messages: reserve them for this process, and collect their notifications.

A claim is committed before the message is sent. A claimed message without a recorded outcome may
therefore have been sent. Claims skip rows that another process has locked. Several processes can
therefore deliver at the same time without waiting. A unique index on recipient, channel and day
ensures that a recipient gets only one digest per channel on a day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from include.notify.notification import (
    IN_DOUBT,
    NO_LONGER_DUE,
    OPTED_OUT,
    ChannelKind,
    address_fault,
)
from include.notify.rendering import NotificationLine, OutgoingMessage
from include.notify.workflow_answers import (
    LookUpAddresses,
    RevealSecrets,
    StillDue,
    WorkflowAnswers,
    ask_workflows,
)
from include.policy.rules import NotificationRules

_DISSOLVE = text(
    """
    WITH old AS (
        SELECT id FROM notification_message WHERE state = 'deferred' AND NOT urgent AND day < :day
        FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE notification SET message = NULL FROM old
        WHERE notification.message = old.id AND notification.state = 'pending'
    )
    UPDATE notification_message m SET state = 'dissolved', next_try_at = NULL, settled_at = :now
    FROM old WHERE m.id = old.id
    """
)
# The server has not accepted a deferred message. A message in state 'sending' after its lease is in
# doubt: its process was killed before recording, or the server never answered.
_CLAIM_AGAIN = text(
    """
    SELECT id, message_id, recipient, urgent, text, tries, created_at, copies,
        state = 'sending' AS doubtful
    FROM notification_message
    WHERE channel = :channel AND (state = 'deferred' AND next_try_at <= :now
        OR state = 'sending' AND claimed_until <= :now)
        AND (urgent OR :telling OR state = 'sending' AND :report) AND (text <> '') = :notices
    ORDER BY urgent DESC, id LIMIT :size FOR UPDATE SKIP LOCKED
    """
)
# The process that locks a recipient's first notification creates the message.
# Notifications with the same text form one message, a notice. Notifications without a text form a
# digest or an urgent message.
_FIND_DUE = text(
    """
    SELECT n.recipient, coalesce(n.text, '') AS text FROM notification n
    WHERE n.state = 'pending' AND n.message IS NULL AND n.channel = :channel
        AND n.urgent = :urgent AND (n.text IS NOT NULL) = :notices
        AND n.recipient >= :after AND (n.recipient, coalesce(n.text, '')) > (:after, :after_text)
        AND n.kind <> ALL(:unsure)
        AND NOT EXISTS (
            SELECT FROM notification o WHERE o.recipient = n.recipient AND o.channel = n.channel
            AND o.state = 'pending' AND o.message IS NULL AND o.urgent = n.urgent
            AND o.text IS NOT DISTINCT FROM n.text AND o.kind <> ALL(:unsure) AND o.id < n.id
        )
        AND (n.urgent OR NOT EXISTS (
            SELECT FROM notification_message m WHERE m.recipient = n.recipient
            AND m.channel = n.channel AND m.day = :day AND m.text = coalesce(n.text, '')
            AND NOT m.urgent AND m.state <> 'dissolved'
        ))
    ORDER BY n.recipient, text LIMIT :size FOR UPDATE OF n SKIP LOCKED
    """
)
_CREATE_MESSAGES = text(
    """
    INSERT INTO notification_message AS m
        (message_id, recipient, channel, day, urgent, text, state, created_at)
    SELECT to_char(cast(:day AS date), 'YYYYMMDD') || '.'
            || replace(gen_random_uuid()::text, '-', '') || '@' || :domain,
        recipient, :channel, :day, :urgent, text, 'sending', :now
    FROM unnest(cast(:recipients AS text[]), cast(:texts AS text[])) AS r (recipient, text)
    ORDER BY recipient, text
    ON CONFLICT (recipient, channel, day, text) WHERE NOT urgent AND state <> 'dissolved' DO NOTHING
    RETURNING id, message_id, recipient, urgent, text, tries, created_at, copies,
        false AS doubtful
    """
)
# A message gets the notifications that are due first, up to its limit; the others follow later.
# MATERIALIZED keeps the plan stable without statistics of freshly filled tables.
_ATTACH_NOTIFICATIONS = text(
    """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(cast(:ids AS bigint[]), cast(:recipients AS text[]),
            cast(:texts AS text[]), cast(:mosts AS int[])) AS m (message, recipient, text, most)
    ), held AS MATERIALIZED (
        SELECT message, count(*) AS notifications FROM notification
        WHERE message = ANY(cast(:ids AS bigint[])) AND state = 'pending' GROUP BY message
    ), ranked AS MATERIALIZED (
        SELECT n.id, g.message, g.most - coalesce(h.notifications, 0) AS room,
            row_number() OVER (PARTITION BY g.message ORDER BY n.due_on, n.id) AS place
        FROM notification n
            JOIN given g ON g.recipient = n.recipient AND g.text = coalesce(n.text, '')
        LEFT JOIN held h ON h.message = g.message
        WHERE n.state = 'pending' AND n.message IS NULL AND n.channel = :channel
            AND n.urgent = :urgent AND n.kind <> ALL(:unsure)
    ), mine AS (
        SELECT n.id, r.message FROM ranked r JOIN notification n ON n.id = r.id
        WHERE r.place <= r.room AND n.state = 'pending' AND n.message IS NULL
        ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
    )
    UPDATE notification SET message = mine.message FROM mine WHERE notification.id = mine.id
    """
)
_COUNT_FOLLOWING = text(
    """
    SELECT m.id, count(*)
    FROM notification_message m JOIN notification n USING (recipient, channel, urgent)
    WHERE m.id = ANY(:ids) AND n.state = 'pending' AND n.message IS NULL
        AND m.text = coalesce(n.text, '') AND n.kind <> ALL(:unsure) GROUP BY m.id
    """
)
_READ_NOTIFICATIONS = text(
    """
    SELECT n.id, n.message, n.kind, n.key, n.name, n.address, n.looked_up,
        n.heading::text AS heading, n.line::text AS line, n.text, n.due_on,
        n.kind = ANY(:optional) AND o.recipient IS NOT NULL AS refused
    FROM notification n
        LEFT JOIN notification_optout o ON o.recipient = n.recipient AND o.kind = n.kind
    WHERE n.message = ANY(:ids) AND n.state = 'pending' ORDER BY n.id
    """
)
# A message that waits for a retry has `next_try_at`; a message that is being sent has none
_MARK_SENDING = text(
    """
    UPDATE notification_message SET state = 'sending', tries = tries + 1, claimed_until = :until,
        copies = copies + CASE WHEN id = ANY(:copies) THEN 1 ELSE 0 END,
        next_try_at = CASE WHEN id = ANY(:held) THEN cast(:until AS timestamptz) END
    WHERE id = ANY(:ids)
    """
)


SearchPosition = tuple[str, str]
"""The position of a search: recipient, and digest of the text or an empty text."""

START: SearchPosition = ("", "")
LEASE = timedelta(minutes=5)  # a running process renews its claim in time
MAX_NOTIFICATIONS = 200  # per message; readers skip longer ones, and servers may refuse them
MAX_COPIES = 2  # further copies that are sent of a message in doubt before it is reported


@dataclass(frozen=True, kw_only=True)
class ClaimedMessage(OutgoingMessage):
    """A message that this process has claimed. No other process sends it during the claim.

    Attributes:
        id: id of the message in the state database.
        tries: number of attempts to send the message, including the current attempt.
        created_at: time at which the message was created.
        doubtful: whether an earlier attempt may have sent the message.
        copies: number of attempts to send the message although it may already have arrived,
            including the current attempt.
    """

    id: int
    tries: int
    created_at: datetime
    doubtful: bool
    copies: int


class UnsentNotification(NamedTuple):
    """A notification that was not delivered, or for which delivery is in doubt.

    Attributes:
        kind: kind of the notification.
        recipient: id of the recipient.
        cause: code of the reason, as defined in `include.notify.notification`.
    """

    kind: str
    recipient: str
    cause: str


@dataclass(frozen=True)
class ClaimTerms:
    """The conditions that decide which messages are claimed.

    Attributes:
        channel: channel of the messages.
        domain: domain for message ids. It is the part of each id after the ``@``.
        rules: content of notices.yaml.
        still_due: kind of notification -> callback. It receives keys of notifications, and returns
            the keys of those that are still due.
        look_up: kind of notice -> callback that returns the addresses of its recipients.
        reveal: kind of notification -> callback that returns the secrets of its lines.
        now: current time.
        day: today's date in the policy pack's timezone.
        may_send_digests: whether digests may be sent now. They are sent outside of quiet hours, and
            only on workdays if notices.yaml says so.
        report_in_doubt: whether a message that may have arrived is reported instead of sent again.
        size: largest number of messages in one claim.
        unavailable_kinds: kinds of notification whose workflow failed to answer -> class of the
            error. Notifications of these kinds wait. The claim adds further kinds.
        size_limits: recipient -> largest number of notifications in a message. An entry is added
            when a server refuses a message to the recipient as too large.
    """

    channel: ChannelKind
    domain: str
    rules: NotificationRules
    still_due: Mapping[str, StillDue]
    look_up: Mapping[str, LookUpAddresses]
    reveal: Mapping[str, RevealSecrets]
    now: datetime
    day: date
    may_send_digests: bool
    report_in_doubt: bool
    size: int
    unavailable_kinds: dict[str, str]
    size_limits: Mapping[str, int] = field(default_factory=dict)


@dataclass
class ClaimResult:
    """The messages that were claimed, and the notifications that cannot be sent.

    Attributes:
        messages: messages to send now.
        undeliverable: notifications without a usable address.
        in_doubt: notifications of messages that may have arrived. They are not sent again.
        withdrawn: number of notifications that are not sent because they are no longer due, or
            because their recipient opted out. It includes those of them that an earlier attempt may
            have sent.
        last: position after which the next search for due messages starts; None if this search
            found all of them.
    """

    messages: list[ClaimedMessage] = field(default_factory=list)
    undeliverable: list[UnsentNotification] = field(default_factory=list)
    in_doubt: list[UnsentNotification] = field(default_factory=list)
    withdrawn: int = 0
    last: SearchPosition | None = None


def dissolve_old_digests(conn: Connection, day: date, now: datetime) -> None:
    """Dissolve digests of earlier days that wait for a retry.

    Their notifications become part of today's digest.
    """
    conn.execute(_DISSOLVE, {"day": day, "now": now})


def claim_again(conn: Connection, terms: ClaimTerms, *, notices: bool) -> ClaimResult:
    """Claim messages for which an earlier attempt to send failed, or has no recorded outcome.

    These are messages that the server deferred, once the pause before the next attempt has ended.
    They are also messages in doubt, once the claim of the earlier attempt has ended.

    Args:
        conn: connection to the state database, in a transaction.
        terms: conditions of the claim.
        notices: True to claim notices to data subjects, False to claim all other messages.
    """
    rows = conn.execute(_CLAIM_AGAIN, _parameters(terms) | {"notices": notices}).mappings().all()
    result = ClaimResult(last=START if len(rows) == terms.size else None)
    in_doubt_ids = {row["id"] for row in rows if row["doubtful"] and _is_reported(terms, row)}
    if in_doubt_ids:
        result.in_doubt = report_in_doubt(conn, sorted(in_doubt_ids), terms.now)
    remaining = [row for row in rows if row["id"] not in in_doubt_ids]
    # A digest gets all new notifications of its recipient, unless it may have been sent already
    if digests := [row for row in remaining if not row["doubtful"] and not row["urgent"]]:
        _attach(conn, terms, digests, urgent=False)
    _add_content(conn, terms, remaining, result)
    return result


def claim_new(
    conn: Connection, terms: ClaimTerms, after: SearchPosition, *, urgent: bool, notices: bool
) -> ClaimResult:
    """Create messages for due notifications, and claim them.

    Args:
        conn: connection to the state database, in a transaction.
        terms: conditions of the claim.
        after: position after which the search for due notifications continues.
        urgent: True to create urgent messages, False to create digests.
        notices: True to create notices to data subjects, False to create other messages.
    """
    values = _parameters(terms) | {"urgent": urgent, "notices": notices}
    recipients = conn.execute(_FIND_DUE, values | {"after": after[0], "after_text": after[1]}).all()
    result = ClaimResult(
        last=(recipients[-1][0], recipients[-1][1]) if len(recipients) == terms.size else None
    )
    if not recipients:
        return result
    values |= {
        "recipients": [notification[0] for notification in recipients],
        "texts": [notification[1] for notification in recipients],
    }
    values["domain"] = terms.domain
    rows = conn.execute(_CREATE_MESSAGES, values).mappings().all()
    if rows:
        _attach(conn, terms, rows, urgent=urgent)
        _add_content(conn, terms, rows, result)
    return result


def report_in_doubt(
    conn: Connection, ids: Sequence[int], now: datetime
) -> list[UnsentNotification]:
    """Record that messages may have arrived. They are then reported and not sent again.

    Args:
        conn: connection to the state database.
        ids: ids of the messages.
        now: current time.

    Returns:
        The notifications of these messages that were still pending.
    """
    _end_messages(conn, ids, "in_doubt", now)
    rows = conn.execute(
        text(
            "UPDATE notification SET state = 'in_doubt', cause = 'in_doubt', settled_at = :now"
            " WHERE message = ANY(:ids) AND state = 'pending' RETURNING kind, recipient, cause"
        ),
        {"ids": list(ids), "now": now},
    )
    return [UnsentNotification(*row) for row in rows]


def _is_reported(terms: ClaimTerms, row: Any) -> bool:
    """Return whether a message that may have arrived is reported instead of sent again.

    notices.yaml decides this. A message that was already sent again `MAX_COPIES` times is always
    reported.

    Args:
        terms: conditions of the claim.
        row: row of the message in the state database.
    """
    return terms.report_in_doubt or row["copies"] >= MAX_COPIES


def _parameters(terms: ClaimTerms) -> dict[str, Any]:
    return {
        "channel": terms.channel,
        "now": terms.now,
        "day": terms.day,
        "telling": terms.may_send_digests,
        "report": terms.report_in_doubt,
        "size": terms.size,
        "unsure": sorted(terms.unavailable_kinds),
    }


def _attach(conn: Connection, terms: ClaimTerms, rows: Sequence[Any], *, urgent: bool) -> None:
    values = _parameters(terms) | {"urgent": urgent}
    values |= {name: [row[key] for row in rows] for name, key in _ROW_KEYS.items()}
    values["mosts"] = [terms.size_limits.get(row["recipient"], MAX_NOTIFICATIONS) for row in rows]
    conn.execute(_ATTACH_NOTIFICATIONS, values)


_ROW_KEYS = {"ids": "id", "recipients": "recipient", "texts": "text"}


def _add_content(
    conn: Connection, terms: ClaimTerms, rows: Sequence[Any], result: ClaimResult
) -> None:
    """Load the notifications of claimed messages, and withdraw those that are no longer due.

    Messages that still contain notifications to send are added to ``result.messages``.

    Args:
        conn: connection to the state database, in a transaction.
        terms: conditions of the claim.
        rows: rows of the claimed messages in the state database.
        result: result of the claim, which is changed.
    """
    if not rows:
        return
    values = {"ids": [row["id"] for row in rows], "optional": list(terms.rules.may_opt_out)}
    notifications = conn.execute(_READ_NOTIFICATIONS, values).mappings().all()
    answers = ask_workflows(
        conn,
        notifications,
        terms.still_due,
        terms.look_up,
        terms.reveal,
        terms.unavailable_kinds,
    )
    content: dict[int, list[Any]] = {row["id"]: [] for row in rows}
    waiting: dict[int, list[int]] = {}
    refused, settled, maybe_sent = [], [], []
    doubtful = {row["id"] for row in rows if row["doubtful"]}
    for notification_row in notifications:
        if notification_row["refused"]:
            refused.append(notification_row["id"])
        elif notification_row["kind"] in answers.unavailable_kinds:
            waiting.setdefault(notification_row["message"], []).append(notification_row["id"])
        elif notification_row["id"] in answers.still_due:
            content[notification_row["message"]].append(notification_row)
        elif notification_row["message"] in doubtful:
            maybe_sent.append(notification_row["id"])
        else:
            settled.append(notification_row["id"])
    _settle(conn, refused, "withdrawn", OPTED_OUT, terms.now)
    _settle(conn, settled, "withdrawn", NO_LONGER_DUE, terms.now)
    # The message may have arrived. Withdrawn notifications could be queued again, and would then be
    # sent in a message with another id.
    _settle(conn, maybe_sent, "in_doubt", NO_LONGER_DUE, terms.now)
    result.withdrawn += len(refused) + len(settled) + len(maybe_sent)
    # A message in doubt is not split: it waits as a whole until its workflow answers
    held = [row["id"] for row in rows if row["doubtful"] and row["id"] in waiting]
    free = [number for message, ids in waiting.items() if message not in held for number in ids]
    if free:
        conn.execute(
            text("UPDATE notification SET message = NULL WHERE id = ANY(:ids)"), {"ids": free}
        )
    following_counts = _following(conn, terms, rows)
    empty = []
    for row in rows:
        message_notifications = content[row["id"]]
        if row["id"] in held:
            continue
        address, cause = (
            _address(terms, message_notifications, answers) if message_notifications else ("", "")
        )
        if cause and row["doubtful"]:  # it may have arrived at an earlier address
            _settle(
                conn,
                [notification["id"] for notification in message_notifications],
                "in_doubt",
                IN_DOUBT,
                terms.now,
            )
            result.in_doubt += [
                UnsentNotification(notification["kind"], row["recipient"], IN_DOUBT)
                for notification in message_notifications
            ]
        elif cause:
            _settle(
                conn,
                [notification["id"] for notification in message_notifications],
                "undeliverable",
                cause,
                terms.now,
            )
            result.undeliverable += [
                UnsentNotification(notification["kind"], row["recipient"], cause)
                for notification in message_notifications
            ]
        if cause or not message_notifications:
            empty.append(row)
        else:
            notice_text = answers.texts.get(row["text"], "")
            following = following_counts.get(row["id"], 0)
            result.messages.append(
                _message(
                    terms,
                    row,
                    message_notifications,
                    address,
                    notice_text,
                    following,
                    answers.secrets,
                )
            )
    _end_empty_messages(conn, empty, terms.now)
    ids = [*(message.id for message in result.messages), *held]
    copies = [message.id for message in result.messages if message.doubtful]
    parameters = {"ids": ids, "copies": copies, "held": held, "until": terms.now + LEASE}
    conn.execute(_MARK_SENDING, parameters)


def _address(
    terms: ClaimTerms, notifications: Sequence[Any], answers: WorkflowAnswers
) -> tuple[str, str]:
    """Return the address of a message, and the reason if the address cannot be used.

    Each notification in the message may have an address. The address of the newest notification
    that has one is used. The reason is empty if the address can be used.

    Args:
        terms: conditions of the claim.
        notifications: rows of the notifications in the message, oldest first.
        answers: answers of the workflows, with the addresses that they returned.
    """
    addresses = [
        answers.addresses.get(notification["id"], notification["address"])
        for notification in notifications
    ]
    address = next(filter(None, reversed(addresses)), "")
    # The allowed domains concern staff; a customer's address may have any domain
    looked_up = any(notification["looked_up"] for notification in notifications)
    return address, address_fault(terms.channel, address, () if looked_up else terms.rules.domains)


def _following(conn: Connection, terms: ClaimTerms, rows: Sequence[Any]) -> dict[int, int]:
    """Return, for each message, how many notifications to its recipient did not fit into it.

    They are sent in a further message. Messages that may already have been sent are not in the
    result.

    Args:
        conn: connection to the state database.
        terms: conditions of the claim.
        rows: rows of the claimed messages in the state database.

    Returns:
        Id of the message -> number of further notifications to its recipient. A message for which
        this number is 0 is left out.
    """
    ids = [row["id"] for row in rows if not row["doubtful"]]
    counts = conn.execute(_COUNT_FOLLOWING, {"ids": ids, "unsure": sorted(terms.unavailable_kinds)})
    return {row[0]: row[1] for row in counts}


def _message(
    terms: ClaimTerms,
    row: Any,
    notifications: Sequence[Any],
    address: str,
    notice_text: str,
    following: int,
    secrets: Mapping[int, str],
) -> ClaimedMessage:
    names = [notification["name"] for notification in notifications if notification["name"]]
    return ClaimedMessage(
        id=row["id"],
        message_id=row["message_id"],
        recipient=row["recipient"],
        urgent=row["urgent"],
        at=terms.now,
        tries=row["tries"] + 1,
        created_at=row["created_at"],
        doubtful=row["doubtful"],
        copies=row["copies"] + row["doubtful"],
        name=names[-1] if names else "",
        address=address,
        text=notice_text,
        items=[_line(notification, secrets) for notification in notifications],
        refusable=all(
            notification["kind"] in terms.rules.may_opt_out for notification in notifications
        ),
        more=following,
    )


def _line(notification: Any, secrets: Mapping[int, str]) -> NotificationLine:
    """Return a line of a message, with its secret if the workflow of its kind returned one."""
    return NotificationLine(
        id=notification["id"],
        kind=notification["kind"],
        key=notification["key"],
        heading=notification["heading"],
        line=notification["line"],
        due_on=notification["due_on"],
        secret=secrets.get(notification["id"], ""),
    )


def _settle(conn: Connection, ids: list[int], state: str, cause: str, now: datetime) -> None:
    if ids:
        conn.execute(
            text(
                "UPDATE notification SET state = :state, cause = :cause, settled_at = :now,"
                " message = NULL WHERE id = ANY(:ids)"
            ),
            {"ids": ids, "state": state, "cause": cause, "now": now},
        )


def _end_empty_messages(conn: Connection, rows: Sequence[Any], now: datetime) -> None:
    """Close messages that no longer contain a notification to send.

    All their notifications were withdrawn, wait, or cannot be delivered. If an earlier attempt may
    have sent such a message, the message still counts as the digest of its day. Its recipient
    therefore gets no second digest on that day.

    Args:
        conn: connection to the state database, in a transaction.
        rows: rows of these messages in the state database.
        now: current time.
    """
    _end_messages(conn, [row["id"] for row in rows if not row["doubtful"]], "dissolved", now)
    _end_messages(conn, [row["id"] for row in rows if row["doubtful"]], "in_doubt", now)


def _end_messages(conn: Connection, ids: Sequence[int], state: str, now: datetime) -> None:
    if ids:
        conn.execute(
            text(
                "UPDATE notification_message SET state = :state, claimed_until = NULL,"
                " next_try_at = NULL, settled_at = :now WHERE id = ANY(:ids)"
            ),
            {"ids": list(ids), "state": state, "now": now},
        )
