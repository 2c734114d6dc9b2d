"""Notices to affected people: their list and the required decision, queueing, and rendering.

The mail channel renders every mail, after the notifier has checked that the notice is still due and
has looked up its address. In `render`, the mail is then counted and discarded, so that no mail
server is measured. In `sent`, it is sent to a mail server.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import psycopg

from benchmarks._incident_context import context_of_run, opened, pack
from include.approvals import registry
from include.evidence.step_findings import StepFindings
from include.incident import timeline
from include.incident.communication import notices
from include.incident.communication.addresses import AddressBook
from include.incident.communication.notice_text import PARTS
from include.incident.counting import subject_list
from include.incident.incident_ids import INDIVIDUAL, Kind
from include.incident.incident_run import IncidentRun, record_of
from include.incident.scope_assessment import assess_scope
from include.messages import verbatim
from include.notify.channels import Channel, MailChannel, mail_of
from include.notify.delivery import DeliveryConfig, deliver
from include.notify.rendering import OutgoingMessage, Writer
from include.services.connections import ConnectionSpec
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.mail import MailServer
from include.workdays.calendar import Workdays

WRITER, DECIDER = "E00002", "E00001"
_SENTENCE = {
    "en": "A record with names, addresses and phone numbers was open to others for six days. ",
    "zh": "一份包含姓名、地址和电话的文件于11月3日至9日期间可被他人访问。",
}


@dataclass
class Counting:
    """A channel that renders and counts mails, and then discards them.

    Args:
        channel: channel that renders the mails.
    """

    channel: MailChannel
    mails: int = 0
    bytes: int = 0
    domain: str = "courier.example"
    connections: int = MailChannel.connections
    _lock: Any = field(default_factory=Lock)

    def open(self) -> Counting:
        """Return this channel as the open connection."""
        return self

    def ready(self) -> Reply:
        """Return that the connection is ready, which is always the case."""
        return Reply(DeliveryStatus.ACCEPTED)

    def send(self, message: OutgoingMessage) -> Reply:
        """Render and count a mail."""
        content = mail_of(message, self.channel.find(), self.channel.writer)
        if message.address.encode() not in content:
            return Reply(DeliveryStatus.REFUSED)
        with self._lock:
            self.mails += 1
            self.bytes += len(content)
        return Reply(DeliveryStatus.ACCEPTED, "250")

    def close(self) -> None:
        """Do nothing, because there is no connection to close."""


# Sign-up time of the n-th newest customer. All newer customers have an e-mail address.
_NEWEST = "SELECT created_at FROM customer ORDER BY customer_id DESC LIMIT 1 OFFSET %s"


def prepare(parameters: dict[str, Any]) -> dict[str, Any]:
    """Open an incident about the newest customers, freeze their list and decide to notify them."""
    run = context_of_run(parameters)
    with psycopg.connect(parameters["courier"]) as connection:
        row = connection.execute(_NEWEST, [parameters["notices"] - 1]).fetchone()
    assert row is not None
    since = row[0].astimezone(run.zone).isoformat()
    number = opened(run, {"collections": "courier.customer", "since": since})
    counted = assess_scope(run, StepFindings("assess", "6.3"))
    assert counted.scope is not None
    assert counted.scope.is_complete
    record = record_of(run, number)
    with run.state.begin() as conn:
        subject_list.freeze_subjects(
            conn,
            record.incident.id,
            1,
            record.incident.selection,
            run.rules.scope_of("courier"),
            run.database("courier"),
            run.reader("courier"),
            moment=record.incident.aware_at,
            zone=run.zone,
        )
        texts = {
            f"{name}_{language}": sentence * 3
            for name in (*PARTS, "next_steps")
            for language, sentence in _SENTENCE.items()
        }
        _enter(conn, run, number, Kind.IMPACT, {"texts": texts}, WRITER)
    record = record_of(run, number)
    plan = notices.plan_notices(run, record)
    with run.state.begin() as conn:
        request = notices.request_decision(conn, run, plan, [WRITER])
        registry.decide(
            conn,
            request,
            decision=registry.APPROVE,
            reason="They can protect themselves.",
            decided_by=DECIDER,
            decided_at=run.clock.now(),
            may_decide=[DECIDER],
            content=request.content,
        )
        data = {"tell": True, "sha256": plan.sha256, "bound": plan.bound_data}
        data |= {"request": request.id, "people": plan.people, "version": plan.version}
        data |= {"adds_to": plan.adds_to, "covers": plan.covers}
        _enter(conn, run, number, Kind.DECIDED, data, DECIDER)
    return {"number": number, "people": plan.people}


def queue(parameters: dict[str, Any]) -> dict[str, Any]:
    """Queue the notices as the step `notify` does, and return the seconds and their number."""
    run = context_of_run(parameters)
    begun = time.monotonic()
    queued = notices.queue_notices(run, record_of(run, parameters["number"]))
    assert queued is not None
    return {"seconds": time.monotonic() - begun, "new": queued.new}


def render(parameters: dict[str, Any]) -> dict[str, Any]:
    """Let the notifier render every mail as the step `send` does, without sending it."""
    channel = _mail(parameters)
    counting = Counting(channel)
    return _delivered(parameters, counting) | {"mails": counting.mails, "bytes": counting.bytes}


def sent(parameters: dict[str, Any]) -> dict[str, Any]:
    """Send every mail to a mail server."""
    return _delivered(parameters, _mail(parameters))


def _mail(parameters: dict[str, Any]) -> MailChannel:
    extra = {"from_email": "Privacy <privacy@courier.example>"}
    extra |= {"disable_ssl": "true", "disable_tls": "true"}
    spec = ConnectionSpec("mail", "smtp", "127.0.0.1", parameters["port"], extra=extra)
    server = MailServer.from_connection(spec)
    return MailChannel(lambda: server, Writer(pack().notices.languages, pack().calendar.timezone))


def _delivered(parameters: dict[str, Any], channel: Channel) -> dict[str, Any]:
    run, calendar = context_of_run(parameters), pack().calendar
    book = AddressBook(run)

    def confirm(keys: Sequence[str]) -> set[str]:
        return notices.notices_still_due(
            run, {parameters["number"]: record_of(run, parameters["number"])}, keys
        )

    office = DeliveryConfig(
        state=run.state,
        channels={"mail": channel},
        rules=run.notices,
        workdays=Workdays(calendar),
        quiet=calendar.quiet,
        zone=run.zone,
        clock=run.clock,
        still_due={INDIVIDUAL: confirm},
        addresses={INDIVIDUAL: book.look_up},
    )
    begun = time.monotonic()
    delivered = deliver(office)
    return {
        "seconds": time.monotonic() - begun,
        "sent": delivered.sent,
        "left": delivered.deferred
        + delivered.undeliverable
        + delivered.in_doubt
        + delivered.withdrawn
        + delivered.waiting,
    }


def _enter(
    conn: Any, run: IncidentRun, number: str, kind: Kind, data: Mapping[str, Any], by: str
) -> None:
    incident_id = record_of(run, number).incident.id
    timeline.append(
        conn, incident_id, kind, verbatim(str(kind)), by=by, clock=run.clock, data=data,
        once=str(kind),
    )  # fmt: skip


PARTS_OF_NOTICES = {"prepare": prepare, "queue": queue, "render": render, "send": sent}
