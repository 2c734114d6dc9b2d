"""Deliver queued notifications: urgent notifications at once, all others in a daily digest.

There is one digest per recipient, channel and day. docs/decisions/0017 describes what happens if a
process is killed after it sent a message and before it recorded the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import get_args
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from include.messages import Message
from include.notify import outcomes
from include.notify.channels import Channel, ChannelConnection
from include.notify.claims import (
    LEASE,
    START,
    ClaimedMessage,
    ClaimResult,
    ClaimTerms,
    SearchPosition,
    UnsentNotification,
    claim_again,
    claim_new,
    dissolve_old_digests,
)
from include.notify.notification import NO_ROBOT, REFUSED, ChannelKind
from include.notify.workflow_answers import LookUpAddresses, RevealSecrets, StillDue
from include.policy.rules import NotificationRules, Quiet
from include.services.clock import Clock
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.errors import UsageError
from include.workdays.calendar import Workdays


@dataclass
class DeliveryResult:
    """The result of a delivery.

    Attributes:
        sent: number of messages that a server accepted.
        notifications: number of notifications in the accepted messages.
        deferred: number of due notifications that were not sent, because a server deferred them, a
            server was unreachable, or a workflow did not answer.
        undeliverable: number of notifications that cannot be sent.
        in_doubt: number of notifications that may have arrived and are not sent again.
        withdrawn: number of notifications that were not sent because they are no longer due, or
            because their recipient opted out.
        waiting: number of notifications that are not due yet. Reasons are quiet hours, a day off,
            or a digest that was sent earlier today.
        sent_by_others: number of messages that another process is sending, or was sending when it
            was killed.
        sent_by_others_until: time from which this process may claim the messages of
            ``sent_by_others``; None if there are no such messages.
        recipients: undeliverable notifications and notifications that may have arrived, each with
            its recipient.
        unusable_channels: channel whose server could not be used -> codes of the server's answer.
        unavailable_kinds: kind of notification whose workflow failed to answer -> class of the
            error.
    """

    sent: int = 0
    notifications: int = 0
    deferred: int = 0
    undeliverable: int = 0
    in_doubt: int = 0
    withdrawn: int = 0
    waiting: int = 0
    sent_by_others: int = 0
    sent_by_others_until: datetime | None = None
    recipients: list[UnsentNotification] = field(default_factory=list)
    unusable_channels: dict[str, str] = field(default_factory=dict)
    unavailable_kinds: dict[str, str] = field(default_factory=dict)

    def add_undeliverable(self, unsent: list[UnsentNotification]) -> None:
        """Count undeliverable notifications, and add them to ``recipients``.

        Args:
            unsent: the undeliverable notifications.
        """
        self.undeliverable += len(unsent)
        self.recipients += unsent

    def add_in_doubt(self, unsent: list[UnsentNotification]) -> None:
        """Count notifications that may have arrived, and add them to ``recipients``.

        Args:
            unsent: notifications that may have arrived.
        """
        self.in_doubt += len(unsent)
        self.recipients += unsent

    def add_sent_by_others(self, messages: int, until: datetime | None) -> None:
        """Count messages that another process is sending.

        Args:
            messages: number of these messages.
            until: time from which this process may claim the messages; None if there are no
                messages.
        """
        self.sent_by_others += messages
        if until and (self.sent_by_others_until is None or until > self.sent_by_others_until):
            self.sent_by_others_until = until


__all__ = ["DeliveryConfig", "DeliveryResult", "StillDue", "UnsentNotification", "deliver"]

BATCH = 200  # messages that are claimed at once
_MAX_SILENT = 5  # consecutive messages without an answer: the server is down or too slow
_LEASE_CHECK_SECONDS = 15  # seconds between checks of the lease of claimed messages
_RENEW = LEASE / 5


@dataclass(frozen=True)
class DeliveryConfig:
    """The configuration of a delivery.

    Attributes:
        state: engine of the state database.
        channels: type of the channel -> channel. Notifications for other types of channel wait.
        rules: content of notices.yaml.
        workdays: workdays of calendar.yaml.
        quiet: quiet hours of calendar.yaml.
        zone: timezone of the policy pack.
        clock: source of the current time. The clocks of machines that deliver at the same time may
            differ by less than `LEASE`.
        still_due: kind of notification -> callback that is called just before sending. It receives
            keys of notifications, and returns the keys of those that are still due. If a kind has
            no callback, all its notifications are due. If the callback fails, the notifications
            wait.
        addresses: kind of notice -> callback that returns the current addresses of the data
            subjects. It is called for each attempt to send. If it fails or is missing, the notices
            wait.
        titles: kind of notification -> display name.
        secrets: kind of notification -> callback that returns a secret for each key, which is sent
            with the line and never stored. It is called for each attempt to send. If it fails, the
            notifications wait.
    """

    state: Engine
    channels: Mapping[ChannelKind, Channel]
    rules: NotificationRules
    workdays: Workdays
    quiet: Quiet
    zone: ZoneInfo
    clock: Clock
    still_due: Mapping[str, StillDue] = field(default_factory=dict)
    addresses: Mapping[str, LookUpAddresses] = field(default_factory=dict)
    titles: Mapping[str, Message] = field(default_factory=dict)
    secrets: Mapping[str, RevealSecrets] = field(default_factory=dict)


def deliver(config: DeliveryConfig, *, notices: bool = True) -> DeliveryResult:
    """Send all due messages. The call can be repeated, and several processes can run it at once.

    Args:
        config: delivery configuration.
        notices: whether notices to data subjects are sent, too. Sending 100,000 notices takes
            minutes, or even a day if the server is slow. A caller whose urgent messages must not
            wait that long passes False. The task `send` of the workflow that queued the notices
            sends them later.

    Returns:
        The numbers of sent and unsent notifications, and the reasons for unsent ones.

    Raises:
        UsageError: a channel with due messages is not configured. Messages of the other channels
            are sent before the error is raised.
        ServiceError: the state database cannot be used.
    """
    delivery = DeliveryResult()
    with config.state.begin() as conn:
        dissolve_old_digests(conn, _today(config)[0], config.clock.now())
    unusable: list[UsageError] = []
    # Deliver chat messages first: they are few and quick, and may be urgent
    for kind in sorted(config.channels, key=lambda channel: channel == "mail"):
        if _has_due_messages(config, kind, notices):  # do not connect without due messages
            try:
                _ChannelDelivery(config, kind, notices, delivery).run()
            except UsageError as error:
                unusable.append(error)
    if unusable:
        raise unusable[0]
    for kind in get_args(ChannelKind):
        with config.state.begin() as conn:
            query = _query(config, kind, notices)
            due, waiting = outcomes.count_unsent(conn, query)
            delivery.add_sent_by_others(*outcomes.count_sent_by_others(conn, query))
        delivery.deferred += due if kind in config.channels else 0
        delivery.waiting += waiting if kind in config.channels else due + waiting
    return delivery


def _reports_in_doubt(rules: NotificationRules, kind: ChannelKind) -> bool:
    """Return whether notices.yaml says that messages that may have arrived are reported.

    If not, such messages are sent again.

    Args:
        rules: content of notices.yaml.
        kind: type of the channel.
    """
    return (rules.in_doubt.mail if kind == "mail" else rules.in_doubt.robot) == "report"


def _has_due_messages(config: DeliveryConfig, kind: ChannelKind, notices: bool) -> bool:
    report = _reports_in_doubt(config.rules, kind)
    with config.state.begin() as conn:
        return outcomes.has_due_messages(conn, _query(config, kind, notices), report=report)


def _query(config: DeliveryConfig, kind: ChannelKind, notices: bool) -> outcomes.DeliveryQuery:
    day, may_send_digests = _today(config)
    return outcomes.DeliveryQuery(kind, day, config.clock.now(), may_send_digests, notices)


def _today(config: DeliveryConfig) -> tuple[date, bool]:
    """Return today's date in the policy pack's timezone, and whether digests may be sent now.

    Digests are not sent in quiet hours. If notices.yaml says so, they are only sent on workdays.
    """
    local = config.clock.now().astimezone(config.zone)
    is_workday = not config.rules.workdays_only or config.workdays.is_workday(local.date())
    return local.date(), is_workday and not config.quiet.covers(local)


@dataclass
class _DeliveryConnections:
    """A connection to a server, and a database connection to record what this server accepted.

    Only one thread uses the two connections at a time.
    """

    channel: ChannelConnection
    state: Connection


@dataclass
class _Batch:
    """Messages that this process has claimed together.

    Attributes:
        unstarted: messages that no thread has started to send.
        ids: ids of the messages whose outcome is not recorded yet.
        until: time at which the claim of all these messages ends if it is not extended.
    """

    unstarted: SimpleQueue[ClaimedMessage]
    ids: set[int]
    until: datetime


_Claim = Callable[[Connection, ClaimTerms, SearchPosition], ClaimResult]


def _claim_again(
    conn: Connection, terms: ClaimTerms, _after: SearchPosition, *, notices: bool
) -> ClaimResult:
    return claim_again(conn, terms, notices=notices)


def _claim_digests(
    conn: Connection, terms: ClaimTerms, after: SearchPosition, *, notices: bool
) -> ClaimResult:
    if not terms.may_send_digests:
        return ClaimResult()
    return claim_new(conn, terms, after, urgent=False, notices=notices)


class _ChannelDelivery:
    """The delivery of all due messages of one channel."""

    def __init__(
        self, config: DeliveryConfig, kind: ChannelKind, notices: bool, delivery: DeliveryResult
    ) -> None:
        self.config, self.kind, self.notices, self.delivery = config, kind, notices, delivery
        self.channel = config.channels[kind]
        self.report = _reports_in_doubt(config.rules, kind)
        self.domain = self.channel.domain
        self.silent_replies = 0
        self.size_limits: dict[str, int] = {}  # by recipient, the maximum number of notifications
        self.needs_resend = False  # whether a smaller message must be created
        self.stop = Event()
        self.lock = Lock()

    def run(self) -> None:
        """Send the due messages of this channel."""
        # If copies are not allowed, messages are claimed one by one
        count = 1 if self.report else self.channel.connections
        with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
            senders = []
            for _number in range(count):
                channel = self.channel.open()
                stack.callback(channel.close)
                state = stack.enter_context(outcomes.open_record_connection(self.config.state))
                senders.append(_DeliveryConnections(channel, state))
            self.watch = stack.enter_context(outcomes.open_record_connection(self.config.state))
            ready = senders[0].channel.ready()
            if ready.status is DeliveryStatus.UNAVAILABLE:
                self._mark_down(ready)
            for claim in self._claim_functions():
                self.needs_resend = True
                while self.needs_resend and not self.stop.is_set():
                    self.needs_resend = False
                    self._send_all(pool, senders, claim)
        if self.kind in self.delivery.unusable_channels:
            self._give_up()

    def _claim_functions(self) -> Iterator[_Claim]:
        """Yield the functions that claim messages, in the order in which they are called.

        Notices to data subjects come last. Urgent messages therefore never wait for them.
        """
        for notices in (False, True) if self.notices else (False,):
            yield partial(_claim_again, notices=notices)
            yield partial(claim_new, urgent=True, notices=notices)
            yield partial(_claim_digests, notices=notices)

    def _terms(self) -> ClaimTerms:
        day, may_send_digests = _today(self.config)
        return ClaimTerms(
            channel=self.kind,
            domain=self.domain,
            rules=self.config.rules,
            still_due=self.config.still_due,
            look_up=self.config.addresses,
            reveal=self.config.secrets,
            now=self.config.clock.now(),
            day=day,
            may_send_digests=may_send_digests,
            report_in_doubt=self.report,
            size=1 if self.report else BATCH,
            unavailable_kinds=self.delivery.unavailable_kinds,
            size_limits=self.size_limits,
        )

    def _send_all(
        self,
        pool: ThreadPoolExecutor,
        senders: Sequence[_DeliveryConnections],
        claim: _Claim,
    ) -> None:
        position: SearchPosition | None = START
        while position is not None and not self.stop.is_set():
            with self.config.state.begin() as conn:
                terms = self._terms()
                result = claim(conn, terms, position)
            self.delivery.add_undeliverable(result.undeliverable)
            self.delivery.add_in_doubt(result.in_doubt)
            self.delivery.withdrawn += result.withdrawn
            position = result.last
            if result.messages:
                self._send_batch(pool, senders, result.messages, terms.now + LEASE)

    def _send_batch(
        self,
        pool: ThreadPoolExecutor,
        senders: Sequence[_DeliveryConnections],
        messages: Sequence[ClaimedMessage],
        until: datetime,
    ) -> None:
        unstarted: SimpleQueue[ClaimedMessage] = SimpleQueue()
        for message in messages:
            unstarted.put(message)
        batch = _Batch(unstarted, {message.id for message in messages}, until)
        futures = [
            pool.submit(self._send_messages, sender, batch) for sender in senders[: len(messages)]
        ]
        try:
            while (progress := wait(futures, _LEASE_CHECK_SECONDS, FIRST_EXCEPTION)).not_done:
                for future in progress.done:
                    future.result()
                self._extend_lease(self.watch, batch)  # a slow server must not exceed the lease
            for future in futures:
                future.result()
        except BaseException:
            self.stop.set()
            raise
        finally:
            wait(futures)
            if untouched := list(_drain(unstarted)):  # not started, so not in doubt
                now = self.config.clock.now()
                with self.config.state.begin() as conn:
                    outcomes.release(conn, untouched, now)

    def _send_messages(self, sender: _DeliveryConnections, batch: _Batch) -> None:
        while not self.stop.is_set():
            try:
                message = batch.unstarted.get_nowait()
            except Empty:
                return
            if self._is_claimed(sender, batch, message):
                at = self.config.clock.now().astimezone(self.config.zone)
                reply = sender.channel.send(replace(message, at=at))
                self._record(sender, message, reply)
            with self.lock:
                batch.ids.discard(message.id)

    def _is_claimed(
        self, sender: _DeliveryConnections, batch: _Batch, message: ClaimedMessage
    ) -> bool:
        """Return whether this process still has the claim of a message and may send it.

        If the claim ends soon, it is extended first, for all messages that were claimed together.

        Args:
            sender: connections on which the message is sent and recorded.
            batch: messages that were claimed together.
            message: one of these messages.
        """
        self._extend_lease(sender.state, batch)
        with self.lock:
            return message.id in batch.ids

    def _extend_lease(self, conn: Connection, batch: _Batch) -> None:
        now = self.config.clock.now()
        with self.lock:
            if now + LEASE - batch.until >= _RENEW:
                own_ids, batch.until = outcomes.extend_lease(
                    conn, list(batch.ids), batch.until, now
                )
                batch.ids &= own_ids

    def _record(self, sender: _DeliveryConnections, message: ClaimedMessage, reply: Reply) -> None:
        now, rules, delivery = self.config.clock.now(), self.config.rules, self.delivery
        conn, code = sender.state, reply.code
        failed: list[UnsentNotification] = []
        doubted: list[UnsentNotification] = []
        match reply.status:
            case DeliveryStatus.ACCEPTED:
                outcomes.record_sent(conn, message, code, now)
            case DeliveryStatus.REFUSED if (
                message.doubtful
            ):  # the outcome of the first copy stays unknown
                doubted = outcomes.record_in_doubt(conn, message, code, rules, now, report=True)
            case DeliveryStatus.REFUSED if reply.too_large:
                failed = outcomes.split_or_give_up(conn, message, code, now)
                self.size_limits[message.recipient] = max(1, len(message.items) // 2)
                self.needs_resend = self.needs_resend or not failed
            case DeliveryStatus.REFUSED:
                cause = NO_ROBOT if code == NO_ROBOT else f"{REFUSED} {code}"
                failed = outcomes.record_refused(conn, message, code, cause, now)
            case DeliveryStatus.IN_DOUBT:
                doubted = outcomes.record_in_doubt(
                    conn, message, code, rules, now, report=self.report
                )
            case _ if message.doubtful:
                doubted = outcomes.record_in_doubt(
                    conn, message, code, rules, now, report=False, unsent=True
                )
            case DeliveryStatus.DEFERRED:
                failed = outcomes.schedule_retry(conn, message, code, rules, now)
            case DeliveryStatus.UNAVAILABLE:
                outcomes.release(conn, [message], now, code)
        is_silent = not code and reply.status in (DeliveryStatus.DEFERRED, DeliveryStatus.IN_DOUBT)
        with self.lock:
            self.silent_replies = self.silent_replies + 1 if is_silent else 0
            delivery.add_undeliverable(failed)
            delivery.add_in_doubt(doubted)
            if reply.status is DeliveryStatus.ACCEPTED:
                delivery.sent += 1
                delivery.notifications += len(message.items)
            if reply.status is DeliveryStatus.UNAVAILABLE or self.silent_replies >= _MAX_SILENT:
                self._mark_down(reply)

    def _mark_down(self, reply: Reply) -> None:
        self.delivery.unusable_channels[self.kind] = reply.code
        self.stop.set()

    def _give_up(self) -> None:
        """Give up notifications if their server was unusable for longer than notices.yaml allows.

        They are added to the result as undeliverable.
        """
        query = _query(self.config, self.kind, self.notices)
        limit = query.now - self.config.rules.give_up_after.span
        with self.config.state.begin() as conn:
            given_up = outcomes.give_up_notifications(conn, query, limit)
        self.delivery.add_undeliverable(given_up)


def _drain(messages: SimpleQueue[ClaimedMessage]) -> Iterator[ClaimedMessage]:
    while True:
        try:
            yield messages.get_nowait()
        except Empty:
            return
