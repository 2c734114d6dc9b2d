"""Deliver what is queued: one digest per recipient, channel and day; urgent messages at once.

docs/decisions/0017 says what holds when a process is killed between sending and recording.
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

from include.notify import marks
from include.notify.asking import Confirm, LookUp
from include.notify.channels import Channel, Line
from include.notify.claims import (
    LEASE,
    START,
    Claimed,
    Place,
    Taken,
    Terms,
    Unsent,
    claim_again,
    claim_new,
    dissolve_old,
)
from include.notify.notice import NO_ROBOT, REFUSED, ChannelKind
from include.policy.rules import NoticeRules, Quiet
from include.services.clock import Clock
from include.services.errors import UsageError
from include.services.fate import Fate, Reply
from include.workdays.calendar import Workdays


@dataclass
class Delivery:
    """The result of a delivery.

    Attributes:
        sent: messages that a server answers for.
        notices: notices in them.
        deferred: notices that are due and not sent: a server put them off, could not be reached,
            or nobody could say whether they are still wanted.
        in_hand: messages that another process is sending, or was when it was killed.
        in_hand_until: when those of a killed one can be taken by others.
        undeliverable: notices that cannot be sent.
        in_doubt: notices that may have arrived and are not sent again.
        withdrawn: notices that nobody wants any more.
        waiting: notices whose time has not come: quiet hours, no workday, a digest was sent today.
        recipients: of undeliverable and in doubt ones, with the cause.
        down: channels whose server could not be used, with the codes of its answer.
        unsure: kinds of which nobody could say whether they are still wanted, with the kind of
            error.
    """

    sent: int = 0
    notices: int = 0
    deferred: int = 0
    undeliverable: int = 0
    in_doubt: int = 0
    withdrawn: int = 0
    waiting: int = 0
    in_hand: int = 0
    in_hand_until: datetime | None = None
    recipients: list[Unsent] = field(default_factory=list)
    down: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)

    def failed(self, unsent: list[Unsent]) -> None:
        """Count notices that cannot be sent."""
        self.undeliverable += len(unsent)
        self.recipients += unsent

    def doubted(self, unsent: list[Unsent]) -> None:
        """Count notices that may have arrived."""
        self.in_doubt += len(unsent)
        self.recipients += unsent

    def held(self, messages: int, until: datetime | None) -> None:
        """Count messages that another process is sending."""
        self.in_hand += messages
        if until and (self.in_hand_until is None or until > self.in_hand_until):
            self.in_hand_until = until


__all__ = ["Confirm", "Delivery", "Office", "Unsent", "deliver"]

BATCH = 200  # messages that are claimed at once
_SILENT = 5  # messages in a row that a server left without an answer: it is down, or too slow
_WATCH = 15  # seconds between two looks at the lease of what is in hand
_RENEW = LEASE / 5


@dataclass(frozen=True)
class Office:
    """The configuration of a delivery.

    Attributes:
        state: the state database.
        channels: by kind; what goes by another waits.
        rules: notices.yaml.
        workdays: of calendar.yaml.
        quiet: likewise.
        zone: of the pack; days are those there.
        clock: the time. Clocks of machines that deliver at once may differ by less than `LEASE`.
        confirm: by kind of notice, says just before a batch is sent which are still wanted; a
            kind without one always is. One that fails lets its kind wait.
        addresses: by kind of notice, says at the same moment where letters go whose address is
            looked up, and is asked anew with every try. Without one, or where it fails, they wait.
    """

    state: Engine
    channels: Mapping[ChannelKind, Channel]
    rules: NoticeRules
    workdays: Workdays
    quiet: Quiet
    zone: ZoneInfo
    clock: Clock
    confirm: Mapping[str, Confirm] = field(default_factory=dict)
    addresses: Mapping[str, LookUp] = field(default_factory=dict)


def deliver(office: Office, *, letters: bool = True) -> Delivery:
    """Send everything that is due; safe to repeat, and to run in several processes at once.

    Args:
        office: what messages are sent with.
        letters: whether letters go too. Who wakes people leaves them to whoever queued them:
            100,000 take minutes, and from a slow server a day.

    Raises:
        UsageError: something is to be sent by a channel that is not configured; the others' is
            sent.
        ServiceError: the state database cannot be used.
    """
    done = Delivery()
    with office.state.begin() as conn:
        dissolve_old(conn, _moment(office)[0], office.clock.now())
    unusable: list[UsageError] = []
    # Chats first: they are few and quick, and somebody may have to be woken.
    for kind in sorted(office.channels, key=lambda one: one == "mail"):
        if _due(office, kind, letters):  # no server is troubled otherwise, none that is down told
            try:
                _Round(office, kind, letters, done).run()
            except UsageError as error:
                unusable.append(error)
    if unusable:
        raise unusable[0]
    for kind in get_args(ChannelKind):
        with office.state.begin() as conn:
            look = _look(office, kind, letters)
            here, later = marks.left(conn, look)
            done.held(*marks.in_hand(conn, look))
        done.deferred += here if kind in office.channels else 0
        done.waiting += later if kind in office.channels else here + later
    return done


def _reports(rules: NoticeRules, kind: ChannelKind) -> bool:
    """Return whether messages of a channel that are in doubt are reported instead of sent again."""
    return (rules.in_doubt.mail if kind == "mail" else rules.in_doubt.robot) == "report"


def _due(office: Office, kind: ChannelKind, letters: bool) -> bool:
    """Return whether anything of a channel is to be done now."""
    report = _reports(office.rules, kind)
    with office.state.begin() as conn:
        return marks.anything(conn, _look(office, kind, letters), report=report)


def _look(office: Office, kind: ChannelKind, letters: bool) -> marks.Look:
    day, telling = _moment(office)
    return marks.Look(kind, day, office.clock.now(), telling, letters)


def _moment(office: Office) -> tuple[date, bool]:
    """Return today's date in the pack's timezone, and whether digests may be sent now."""
    local = office.clock.now().astimezone(office.zone)
    works = not office.rules.workdays_only or office.workdays.is_workday(local.date())
    return local.date(), works and not office.quiet.covers(local)


@dataclass
class _Station:
    """A line with the connection for its marks; one thread at a time works at it."""

    line: Line
    conn: Connection


@dataclass
class _Batch:
    """Messages in hand.

    Attributes:
        left: those that nobody has begun with.
        ids: those that nobody is done with.
        until: end of the lease of all of them.
    """

    left: SimpleQueue[Claimed]
    ids: set[int]
    until: datetime


_Claim = Callable[[Connection, Terms, Place], Taken]


def _again(conn: Connection, terms: Terms, _after: Place, *, letters: bool) -> Taken:
    return claim_again(conn, terms, letters=letters)


def _what_can_wait(conn: Connection, terms: Terms, after: Place, *, letters: bool) -> Taken:
    if not terms.telling:
        return Taken()
    return claim_new(conn, terms, after, urgent=False, letters=letters)


class _Round:
    """One channel's part of a delivery."""

    def __init__(self, office: Office, kind: ChannelKind, letters: bool, done: Delivery) -> None:
        self.office, self.kind, self.letters, self.done = office, kind, letters, done
        self.channel = office.channels[kind]
        self.report = _reports(office.rules, kind)
        self.domain = self.channel.domain
        self.silent = 0
        self.small: dict[str, int] = {}  # by recipient, what a message may hold
        self.halved = False  # whether a message is to be made anew, and smaller
        self.stop = Event()
        self.lock = Lock()

    def run(self) -> None:
        """Send the due messages of this channel."""
        # What is cut off and not sent again must not be claimed before its turn comes.
        lines = 1 if self.report else self.channel.lines
        with ExitStack() as stack, ThreadPoolExecutor(lines) as pool:
            stations = []
            for _number in range(lines):
                line = self.channel.open()
                stack.callback(line.close)
                conn = stack.enter_context(marks.open_marks(self.office.state))
                stations.append(_Station(line, conn))
            self.watch = stack.enter_context(marks.open_marks(self.office.state))
            ready = stations[0].line.ready()
            if ready.fate is Fate.UNAVAILABLE:
                self._down(ready)
            for claim in self._turns():
                self.halved = True
                while self.halved and not self.stop.is_set():
                    self.halved = False
                    self._send_all(pool, stations, claim)
        if self.kind in self.done.down:
            self._give_up()

    def _turns(self) -> Iterator[_Claim]:
        """Yield the claims in their order: urgent messages never wait for letters."""
        for letters in (False, True) if self.letters else (False,):
            yield partial(_again, letters=letters)
            yield partial(claim_new, urgent=True, letters=letters)
            yield partial(_what_can_wait, letters=letters)

    def _terms(self) -> Terms:
        day, telling = _moment(self.office)
        return Terms(
            channel=self.kind,
            domain=self.domain,
            rules=self.office.rules,
            confirm=self.office.confirm,
            look_up=self.office.addresses,
            now=self.office.clock.now(),
            day=day,
            telling=telling,
            report=self.report,
            size=1 if self.report else BATCH,
            unsure=self.done.unsure,
            small=self.small,
        )

    def _send_all(
        self,
        pool: ThreadPoolExecutor,
        stations: Sequence[_Station],
        claim: _Claim,
    ) -> None:
        after: Place | None = START
        while after is not None and not self.stop.is_set():
            with self.office.state.begin() as conn:
                terms = self._terms()
                taken = claim(conn, terms, after)
            self.done.failed(taken.undeliverable)
            self.done.doubted(taken.in_doubt)
            self.done.withdrawn += taken.withdrawn
            after = taken.last
            if taken.messages:
                self._send_batch(pool, stations, taken.messages, terms.now + LEASE)

    def _send_batch(
        self,
        pool: ThreadPoolExecutor,
        stations: Sequence[_Station],
        messages: Sequence[Claimed],
        until: datetime,
    ) -> None:
        left: SimpleQueue[Claimed] = SimpleQueue()
        for message in messages:
            left.put(message)
        batch = _Batch(left, {message.id for message in messages}, until)
        work = [
            pool.submit(self._work_off, station, batch) for station in stations[: len(messages)]
        ]
        try:
            while (seen := wait(work, _WATCH, FIRST_EXCEPTION)).not_done:
                for ended in seen.done:
                    ended.result()
                self._hold(self.watch, batch)  # a slow server must not outlast the lease
            for ended in work:
                ended.result()
        except BaseException:
            self.stop.set()
            raise
        finally:
            wait(work)
            if untouched := list(_rest(left)):  # nobody tried: they are no message's worth of doubt
                now = self.office.clock.now()
                with self.office.state.begin() as conn:
                    marks.released(conn, untouched, now)

    def _work_off(self, station: _Station, batch: _Batch) -> None:
        while not self.stop.is_set():
            try:
                one = batch.left.get_nowait()
            except Empty:
                return
            if self._ours(station, batch, one):
                at = self.office.clock.now().astimezone(self.office.zone)
                reply = station.line.send(replace(one, at=at))
                self._record(station, one, reply)
            with self.lock:
                batch.ids.discard(one.id)

    def _ours(self, station: _Station, batch: _Batch, one: Claimed) -> bool:
        """Return whether a message is still this process's; holds the batch for longer in time."""
        self._hold(station.conn, batch)
        with self.lock:
            return one.id in batch.ids

    def _hold(self, conn: Connection, batch: _Batch) -> None:
        now = self.office.clock.now()
        with self.lock:
            if now + LEASE - batch.until >= _RENEW:
                mine, batch.until = marks.extended(conn, list(batch.ids), batch.until, now)
                batch.ids &= mine

    def _record(self, station: _Station, one: Claimed, reply: Reply) -> None:
        now, rules, done = self.office.clock.now(), self.office.rules, self.done
        conn, code = station.conn, reply.code
        failed: list[Unsent] = []
        doubted: list[Unsent] = []
        match reply.fate:
            case Fate.ACCEPTED:
                marks.sent(conn, one, code, now)
            case Fate.REFUSED if one.doubtful:  # the copy; what became of the first, nobody knows
                doubted = marks.in_doubt(conn, one, code, rules, now, report=True)
            case Fate.REFUSED if reply.too_large:
                failed = marks.too_large(conn, one, code, now)
                self.small[one.recipient] = max(1, len(one.items) // 2)
                self.halved = self.halved or not failed
            case Fate.REFUSED:
                cause = NO_ROBOT if code == NO_ROBOT else f"{REFUSED} {code}"
                failed = marks.refused(conn, one, code, cause, now)
            case Fate.IN_DOUBT:
                doubted = marks.in_doubt(conn, one, code, rules, now, report=self.report)
            case _ if one.doubtful:
                doubted = marks.in_doubt(conn, one, code, rules, now, report=False, unsent=True)
            case Fate.DEFERRED:
                failed = marks.deferred(conn, one, code, rules, now)
            case Fate.UNAVAILABLE:
                marks.released(conn, [one], now, code)
        silent = not code and reply.fate in (Fate.DEFERRED, Fate.IN_DOUBT)
        with self.lock:
            self.silent = self.silent + 1 if silent else 0
            done.failed(failed)
            done.doubted(doubted)
            if reply.fate is Fate.ACCEPTED:
                done.sent += 1
                done.notices += len(one.items)
            if reply.fate is Fate.UNAVAILABLE or self.silent >= _SILENT:
                self._down(reply)

    def _down(self, reply: Reply) -> None:
        self.done.down[self.kind] = reply.code
        self.stop.set()

    def _give_up(self) -> None:
        """Give up and report notices whose server could not be used for too long."""
        look = _look(self.office, self.kind, self.letters)
        limit = look.now - self.office.rules.give_up_after.span
        with self.office.state.begin() as conn:
            found = marks.give_up(conn, look, limit)
        self.done.failed(found)


def _rest(left: SimpleQueue[Claimed]) -> Iterator[Claimed]:
    while True:
        try:
            yield left.get_nowait()
        except Empty:
            return
