"""Fixtures: deliveries with a state database, a clock that the test moves, and a mail server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from include.messages import _, verbatim
from include.notify import outbox
from include.notify.channels import MailChannel, RobotChannel
from include.notify.delivery import DeliveryConfig, DeliveryResult, deliver
from include.notify.notification import Notification
from include.notify.outbox import QueueCounts, Run
from include.notify.rendering import Writer
from include.notify.texts import NoticePart, NoticeText
from include.notify.workflow_answers import LookUpAddresses, RevealSecrets, StillDue
from include.policy.rules import Calendar, NotificationRules
from include.services.connections import ConnectionSpec
from include.services.errors import UsageError
from include.services.mail import MailServer
from include.services.robot import Robot
from include.workdays.calendar import Workdays
from tests.support.robots import SECRET, TOKEN, RobotServer

THURSDAY = datetime(2026, 11, 26, 2, tzinfo=UTC)  # 10:00 in Shanghai
CALENDAR = Calendar()
RUN = Run("remind_training", "r1")
KIND = "training.reminder"
INDIVIDUAL_NOTICE = "incident.individual"
NOTICE_HEADING = "About your personal information"
HEADING = _("Your mandatory training")


@dataclass
class MovingClock:
    """A clock that the test moves."""

    moment: datetime = THURSDAY
    source: str = "test"

    def now(self) -> datetime:
        return self.moment

    def on(self, **more: float) -> None:
        self.moment += timedelta(**more)


def notification(number: int, person: str = "E1", **more: Any) -> Notification:
    """Return a notification to a person; its line contains the number."""
    fields = {
        "kind": KIND,
        "key": f"{person}/{number}",
        "recipient": person,
        "heading": HEADING,
        "line": _("Course {number}", number=f"n{number}"),
        "name": f"Name of {person}",
        "address": f"{person.lower()}@courier.example",
    }
    return Notification(**fields | more)


def notice_text(part: str = "Somebody copied it.", **more: Any) -> NoticeText:
    """Return the text of a notice to data subjects with one section."""
    fields = {
        "heading": verbatim(NOTICE_HEADING),
        "opening": verbatim("We tell you of a security incident."),
        "parts": (NoticePart(title=verbatim("What happened"), words=verbatim(part)),),
        "contact": verbatim("Hotline 4000000000"),
    }
    return NoticeText(**fields | more)


@dataclass(frozen=True)
class CustomerAddresses:
    """A table of customer addresses, in the database of the state tables."""

    engine: Engine

    def fill(self, addresses: Mapping[str, str]) -> None:
        with self.engine.begin() as conn:
            conn.execute(text("CREATE SCHEMA IF NOT EXISTS company"))
            conn.execute(text("DROP TABLE IF EXISTS company.customer"))
            conn.execute(text("CREATE TABLE company.customer (key text, address text)"))
            rows = [{"key": key, "address": address} for key, address in addresses.items()]
            conn.execute(text("INSERT INTO company.customer VALUES (:key, :address)"), rows)

    def __call__(self, keys: Sequence[str]) -> Mapping[str, str]:
        query = text("SELECT key, address FROM company.customer WHERE key = ANY(:keys)")
        with self.engine.begin() as conn:
            return {row[0]: row[1] for row in conn.execute(query, {"keys": list(keys)})}


@dataclass
class Post:
    """A delivery configuration that tests change between deliveries."""

    state: Engine
    port: int
    clock: MovingClock = field(default_factory=MovingClock)
    rules: NotificationRules = field(default_factory=NotificationRules)
    confirm: Mapping[str, StillDue] = field(default_factory=dict)
    addresses: Mapping[str, LookUpAddresses] = field(default_factory=dict)
    secrets: Mapping[str, RevealSecrets] = field(default_factory=dict)
    robots: RobotServer | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def office(self) -> DeliveryConfig:
        writer = Writer(self.rules.languages, "Asia/Shanghai")
        return DeliveryConfig(
            state=self.state,
            channels={
                "mail": MailChannel(self._server, writer),
                "robot": RobotChannel(self._robot, writer),
            },
            rules=self.rules,
            workdays=Workdays(CALENDAR),
            quiet=CALENDAR.quiet,
            zone=CALENDAR.zone,
            clock=self.clock,
            still_due=self.confirm,
            addresses=self.addresses,
            secrets=self.secrets,
        )

    def _server(self) -> MailServer:
        extra = {"from_email": "Seal <seal@courier.example>", "timeout": 5}
        extra |= {"disable_ssl": True, "disable_tls": True, **self.extra}
        return MailServer.from_connection(
            ConnectionSpec("mail", "smtp", "127.0.0.1", self.port, extra=extra)
        )

    def _robot(self, conn_id: str) -> Robot:
        if self.robots is None or conn_id != "chat":
            raise UsageError(f"There is no connection {conn_id}.")
        extra = {"kind": "dingtalk", "secret": SECRET}
        spec = ConnectionSpec("chat", "http", self.robots.url, password=TOKEN, extra=extra)
        return Robot.from_connection(spec, self.clock)

    def queue(
        self, *notifications: Notification, rules: NotificationRules | None = None
    ) -> QueueCounts:
        with self.state.begin() as conn:
            return outbox.queue_notifications(conn, notifications, RUN, self.clock.now(), rules)

    def keep(self, words: NoticeText) -> str:
        with self.state.begin() as conn:
            return outbox.store_text(conn, words)

    def deliver(self, **more: Any) -> DeliveryResult:
        return deliver(self.office(), **more)

    def untold(self, keys: Iterable[str], kind: str = KIND) -> set[str]:
        with self.state.begin() as conn:
            return outbox.unqueued_keys(conn, kind, keys)

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.state.begin() as conn:
            return [tuple(row) for row in conn.execute(text(query), values)]

    def states(self) -> dict[str, str]:
        """Return the state of each notification, by its key."""
        return dict(self.rows("SELECT key, state FROM notification ORDER BY id"))

    def causes(self) -> dict[str, str]:
        return dict(self.rows("SELECT key, cause FROM notification ORDER BY id"))

    def messages(self) -> list[tuple[str, str, date]]:
        """Return recipient, state and day of each message."""
        return self.rows("SELECT recipient, state, day FROM notification_message ORDER BY id")
