"""Letters to affected people: the list and the decision that they need, queueing, and rendering.

Every mail is really made, by the channel's own code, after the notifier has asked whether it is
still wanted and looked up its address; instead of being handed to a server it is counted and
dropped, so that no server's speed is measured. Handed to one they go in `sent`.
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
from include.incident.assessing import assess
from include.incident.counting import subjects
from include.incident.incident_run import IncidentRun, record_of
from include.incident.names import INDIVIDUAL, Kind
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook
from include.incident.telling.letter import PARTS
from include.messages import verbatim
from include.notify.channels import Channel, MailChannel, mail_of
from include.notify.delivery import Office, deliver
from include.notify.letters import Letter, Writer
from include.services.connections import ConnectionSpec
from include.services.fate import Fate, Reply
from include.services.mail import MailServer
from include.workdays.calendar import Workdays

WRITER, DECIDER = "E00002", "E00001"
_SENTENCE = {
    "en": "A record with names, addresses and phone numbers was open to others for six days. ",
    "zh": "一份包含姓名、地址和电话的文件于11月3日至9日期间可被他人访问。",
}


@dataclass
class Counting:
    """A channel whose mails are made, counted and dropped.

    Args:
        channel: whose mails they are.
    """

    channel: MailChannel
    mails: int = 0
    bytes: int = 0
    domain: str = "courier.example"
    lines: int = MailChannel.lines
    _lock: Any = field(default_factory=Lock)

    def open(self) -> Counting:
        """A line is the channel itself."""
        return self

    def ready(self) -> Reply:
        """Always."""
        return Reply(Fate.ACCEPTED)

    def send(self, letter: Letter) -> Reply:
        """Make the mail."""
        content = mail_of(letter, self.channel.find(), self.channel.writer)
        if letter.address.encode() not in content:
            return Reply(Fate.REFUSED)
        with self._lock:
            self.mails += 1
            self.bytes += len(content)
        return Reply(Fate.ACCEPTED, "250")

    def close(self) -> None:
        """Nothing is open."""


# When the first of so many of the newest customers came; all of these have an address for mail.
_NEWEST = "SELECT created_at FROM customer ORDER BY customer_id DESC LIMIT 1 OFFSET %s"


def prepare(given: dict[str, Any]) -> dict[str, Any]:
    """Open an incident about the newest customers, freeze their list, decide that they are told."""
    run = context_of_run(given)
    with psycopg.connect(given["courier"]) as connection:
        row = connection.execute(_NEWEST, [given["letters"] - 1]).fetchone()
    assert row is not None
    since = row[0].astimezone(run.zone).isoformat()
    number = opened(run, {"collections": "courier.customer", "since": since})
    counted = assess(run, StepFindings("assess", "6.3"))
    assert counted.scope is not None
    assert counted.scope.complete
    record = record_of(run, number)
    with run.state.begin() as conn:
        subjects.freeze(
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
    made = notifying.plan(run, record)
    with run.state.begin() as conn:
        asked = notifying.request(conn, run, made, [WRITER])
        registry.decide(
            conn,
            asked,
            decision=registry.APPROVE,
            reason="They can protect themselves.",
            decided_by=DECIDER,
            decided_at=run.clock.now(),
            may_decide=[DECIDER],
            content=asked.content,
        )
        data = {"tell": True, "sha256": made.sha256, "bound": made.bound}
        data |= {"request": asked.id, "people": made.people, "version": made.version}
        data |= {"adds_to": made.adds_to, "covers": made.covers}
        _enter(conn, run, number, Kind.DECIDED, data, DECIDER)
    return {"number": number, "people": made.people}


def queue(given: dict[str, Any]) -> dict[str, Any]:
    """Queue the notices, as `notify` does."""
    run = context_of_run(given)
    begun = time.monotonic()
    found = notifying.queue(run, record_of(run, given["number"]))
    assert found is not None
    return {"seconds": time.monotonic() - begun, "new": found.new}


def render(given: dict[str, Any]) -> dict[str, Any]:
    """Let the notifier make every mail, as `send` does; none leaves."""
    channel = _mail(given)
    counting = Counting(channel)
    return _delivered(given, counting) | {"mails": counting.mails, "bytes": counting.bytes}


def sent(given: dict[str, Any]) -> dict[str, Any]:
    """Send every mail to a server."""
    return _delivered(given, _mail(given))


def _mail(given: dict[str, Any]) -> MailChannel:
    extra = {"from_email": "Privacy <privacy@courier.example>"}
    extra |= {"disable_ssl": "true", "disable_tls": "true"}
    spec = ConnectionSpec("mail", "smtp", "127.0.0.1", given["port"], extra=extra)
    server = MailServer.from_connection(spec)
    return MailChannel(lambda: server, Writer(pack().notices.languages, pack().calendar.timezone))


def _delivered(given: dict[str, Any], channel: Channel) -> dict[str, Any]:
    run, calendar = context_of_run(given), pack().calendar
    book = AddressBook(run)

    def confirm(keys: Sequence[str]) -> set[str]:
        return notifying.wanted(run, {given["number"]: record_of(run, given["number"])}, keys)

    office = Office(
        state=run.state,
        channels={"mail": channel},
        rules=run.notices,
        workdays=Workdays(calendar),
        quiet=calendar.quiet,
        zone=run.zone,
        clock=run.clock,
        confirm={INDIVIDUAL: confirm},
        addresses={INDIVIDUAL: book.look_up},
    )
    begun = time.monotonic()
    done = deliver(office)
    return {
        "seconds": time.monotonic() - begun,
        "sent": done.sent,
        "left": done.deferred + done.undeliverable + done.in_doubt + done.withdrawn + done.waiting,
    }


def _enter(
    conn: Any, run: IncidentRun, number: str, kind: Kind, data: Mapping[str, Any], by: str
) -> None:
    incident_id = record_of(run, number).incident.id
    timeline.append(
        conn, incident_id, kind, verbatim(str(kind)), by=by, clock=run.clock, data=data,
        once=str(kind),
    )  # fmt: skip


PARTS_OF_LETTERS = {"prepare": prepare, "queue": queue, "render": render, "send": sent}
