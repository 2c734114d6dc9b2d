"""Claim messages that are due: lock them, compose them, and ask whether they are still wanted.

Whoever claims a message writes so, durably, before anything leaves: a message that was claimed and
not recorded afterwards may have been sent. Claims skip what another process has locked, so several
deliver at once and none waits; the unique index on recipient, channel and day has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from include.notify.asking import Asked, Confirm, LookUp, ask
from include.notify.letters import Item, Letter
from include.notify.notice import IN_DOUBT, NOT_WANTED, OPTED_OUT, ChannelKind, fault
from include.policy.rules import NoticeRules

DISSOLVE = text(
    """
    WITH old AS (
        SELECT id FROM notice_message WHERE state = 'deferred' AND NOT urgent AND day < :day
        FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE notice SET message = NULL FROM old
        WHERE notice.message = old.id AND notice.state = 'pending'
    )
    UPDATE notice_message m SET state = 'dissolved', next_try_at = NULL, settled_at = :now
    FROM old WHERE m.id = old.id
    """
)
# Of a deferred one the server said that it does not have it. One that is still being sent after its
# lease was cut off between sending and recording, or the server never answered: in doubt.
AGAIN = text(
    """
    SELECT id, message_id, recipient, urgent, text, tries, created_at, copies,
        state = 'sending' AS doubtful
    FROM notice_message
    WHERE channel = :channel AND (state = 'deferred' AND next_try_at <= :now
        OR state = 'sending' AND claimed_until <= :now)
        AND (urgent OR :telling OR state = 'sending' AND :report) AND (text <> '') = :letters
    ORDER BY urgent DESC, id LIMIT :size FOR UPDATE SKIP LOCKED
    """
)
# The first notice of a recipient stands for all of them: who has its lock, makes the message. Those
# of one text are a message of their own; those without any are the digest.
DUE = text(
    """
    SELECT n.recipient, coalesce(n.text, '') AS text FROM notice n
    WHERE n.state = 'pending' AND n.message IS NULL AND n.channel = :channel
        AND n.urgent = :urgent AND (n.text IS NOT NULL) = :letters
        AND n.recipient >= :after AND (n.recipient, coalesce(n.text, '')) > (:after, :after_text)
        AND n.kind <> ALL(:unsure)
        AND NOT EXISTS (
            SELECT FROM notice o WHERE o.recipient = n.recipient AND o.channel = n.channel
            AND o.state = 'pending' AND o.message IS NULL AND o.urgent = n.urgent
            AND o.text IS NOT DISTINCT FROM n.text AND o.kind <> ALL(:unsure) AND o.id < n.id
        )
        AND (n.urgent OR NOT EXISTS (
            SELECT FROM notice_message m WHERE m.recipient = n.recipient
            AND m.channel = n.channel AND m.day = :day AND m.text = coalesce(n.text, '')
            AND NOT m.urgent AND m.state <> 'dissolved'
        ))
    ORDER BY n.recipient, text LIMIT :size FOR UPDATE OF n SKIP LOCKED
    """
)
MAKE = text(
    """
    INSERT INTO notice_message AS m
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
# Of each recipient so many as one message holds, those that are due first; the others follow.
# Each part is worked out once, whatever PostgreSQL knows of a table that was just filled.
ATTACH = text(
    """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(cast(:ids AS bigint[]), cast(:recipients AS text[]),
            cast(:texts AS text[]), cast(:mosts AS int[])) AS m (message, recipient, text, most)
    ), held AS MATERIALIZED (
        SELECT message, count(*) AS notices FROM notice
        WHERE message = ANY(cast(:ids AS bigint[])) AND state = 'pending' GROUP BY message
    ), ranked AS MATERIALIZED (
        SELECT n.id, g.message, g.most - coalesce(h.notices, 0) AS room,
            row_number() OVER (PARTITION BY g.message ORDER BY n.due_on, n.id) AS place
        FROM notice n JOIN given g ON g.recipient = n.recipient AND g.text = coalesce(n.text, '')
        LEFT JOIN held h ON h.message = g.message
        WHERE n.state = 'pending' AND n.message IS NULL AND n.channel = :channel
            AND n.urgent = :urgent AND n.kind <> ALL(:unsure)
    ), mine AS (
        SELECT n.id, r.message FROM ranked r JOIN notice n ON n.id = r.id
        WHERE r.place <= r.room AND n.state = 'pending' AND n.message IS NULL
        ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
    )
    UPDATE notice SET message = mine.message FROM mine WHERE notice.id = mine.id
    """
)
FOLLOW = text(
    """
    SELECT m.id, count(*) FROM notice_message m JOIN notice n USING (recipient, channel, urgent)
    WHERE m.id = ANY(:ids) AND n.state = 'pending' AND n.message IS NULL
        AND m.text = coalesce(n.text, '') AND n.kind <> ALL(:unsure) GROUP BY m.id
    """
)
CONTENT = text(
    """
    SELECT n.id, n.message, n.kind, n.key, n.name, n.address, n.looked_up,
        n.heading::text AS heading, n.line::text AS line, n.text, n.due_on,
        n.kind = ANY(:optional) AND o.recipient IS NOT NULL AS refused
    FROM notice n LEFT JOIN notice_optout o ON o.recipient = n.recipient AND o.kind = n.kind
    WHERE n.message = ANY(:ids) AND n.state = 'pending' ORDER BY n.id
    """
)
# Of one that waits as a whole, the moment of its next try tells it from one that is being sent.
TAKE = text(
    """
    UPDATE notice_message SET state = 'sending', tries = tries + 1, claimed_until = :until,
        copies = copies + CASE WHEN id = ANY(:copies) THEN 1 ELSE 0 END,
        next_try_at = CASE WHEN id = ANY(:held) THEN cast(:until AS timestamptz) END
    WHERE id = ANY(:ids)
    """
)


Place = tuple[str, str]
"""Where a search stands: recipient, and digest of the text or nothing."""

START: Place = ("", "")
LEASE = timedelta(minutes=5)  # whoever is alive renews it in time
MOST_NOTICES = 200  # in one message; nobody reads more, and a server may refuse it by its size
MOST_COPIES = 2  # of a message in doubt; what did not arrive by then is told to people


@dataclass(frozen=True, kw_only=True)
class Claimed(Letter):
    """A message that this process may send.

    Attributes:
        id: of the message.
        tries: number of tries, this one included.
        created_at: when the message was made.
        doubtful: whether it may have been sent before.
        copies: how often it was sent while it was in doubt, this time included.
    """

    id: int
    tries: int
    created_at: datetime
    doubtful: bool
    copies: int


class Unsent(NamedTuple):
    """A notice that did not reach its recipient, or may not have.

    Attributes:
        cause: one of `include.notify.notice`.
    """

    kind: str
    recipient: str
    cause: str


@dataclass(frozen=True)
class Terms:
    """The terms of a claim.

    Attributes:
        telling: whether what can wait may be sent: a workday, and no quiet hours.
        report: whether messages in doubt are reported instead of sent again.
        unsure: kinds of which nobody can say now whether they are still wanted, or where they go;
            they wait. With the kind of error.
        small: by recipient, how many notices a message may hold, where a server refused more.
    """

    channel: ChannelKind
    domain: str
    rules: NoticeRules
    confirm: Mapping[str, Confirm]
    look_up: Mapping[str, LookUp]
    now: datetime
    day: date
    telling: bool
    report: bool
    size: int
    unsure: dict[str, str]
    small: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Taken:
    """The result of a claim.

    Attributes:
        messages: to be sent now.
        undeliverable: notices whose address cannot be used.
        in_doubt: notices of messages that may have been sent and are not sent again.
        withdrawn: notices that nobody wants any more.
        last: where the search stopped; None when it is at its end.
    """

    messages: list[Claimed] = field(default_factory=list)
    undeliverable: list[Unsent] = field(default_factory=list)
    in_doubt: list[Unsent] = field(default_factory=list)
    withdrawn: int = 0
    last: Place | None = None


def dissolve_old(conn: Connection, day: date, now: datetime) -> None:
    """Let go of digests of earlier days that no server took: they join today's."""
    conn.execute(DISSOLVE, {"day": day, "now": now})


def claim_again(conn: Connection, terms: Terms, *, letters: bool) -> Taken:
    """Take messages that wait for another try, or that were cut off: letters, or digests."""
    rows = conn.execute(AGAIN, _values(terms) | {"letters": letters}).mappings().all()
    taken = Taken(last=START if len(rows) == terms.size else None)
    lost = {row["id"] for row in rows if row["doubtful"] and _enough(terms, row)}
    if lost:
        taken.in_doubt = report_in_doubt(conn, sorted(lost), terms.now)
    left = [row for row in rows if row["id"] not in lost]
    # A digest takes everything for its recipient; one that may have been sent stays as it is.
    if digests := [row for row in left if not row["doubtful"] and not row["urgent"]]:
        _attach(conn, terms, digests, urgent=False)
    _fill(conn, terms, left, taken)
    return taken


def claim_new(
    conn: Connection, terms: Terms, after: Place, *, urgent: bool, letters: bool
) -> Taken:
    """Make messages of what is due, from a place on: letters, or digests."""
    values = _values(terms) | {"urgent": urgent, "letters": letters}
    found = conn.execute(DUE, values | {"after": after[0], "after_text": after[1]}).all()
    taken = Taken(last=(found[-1][0], found[-1][1]) if len(found) == terms.size else None)
    if not found:
        return taken
    values |= {
        "recipients": [notice[0] for notice in found],
        "texts": [notice[1] for notice in found],
    }
    values["domain"] = terms.domain
    rows = conn.execute(MAKE, values).mappings().all()
    if rows:
        _attach(conn, terms, rows, urgent=urgent)
        _fill(conn, terms, rows, taken)
    return taken


def report_in_doubt(conn: Connection, ids: Sequence[int], now: datetime) -> list[Unsent]:
    """Settle messages that may have been sent, and return what is in them."""
    _end(conn, ids, "in_doubt", now)
    rows = conn.execute(
        text(
            "UPDATE notice SET state = 'in_doubt', cause = 'in_doubt', settled_at = :now"
            " WHERE message = ANY(:ids) AND state = 'pending' RETURNING kind, recipient, cause"
        ),
        {"ids": list(ids), "now": now},
    )
    return [Unsent(*row) for row in rows]


def _enough(terms: Terms, row: Any) -> bool:
    """Whether a message in doubt is not sent again: by the policy, or there were copies enough."""
    return terms.report or row["copies"] >= MOST_COPIES


def _values(terms: Terms) -> dict[str, Any]:
    return {
        "channel": terms.channel,
        "now": terms.now,
        "day": terms.day,
        "telling": terms.telling,
        "report": terms.report,
        "size": terms.size,
        "unsure": sorted(terms.unsure),
    }


def _attach(conn: Connection, terms: Terms, rows: Sequence[Any], *, urgent: bool) -> None:
    values = _values(terms) | {"urgent": urgent}
    values |= {name: [row[key] for row in rows] for name, key in _PAIR.items()}
    values["mosts"] = [terms.small.get(row["recipient"], MOST_NOTICES) for row in rows]
    conn.execute(ATTACH, values)


_PAIR = {"ids": "id", "recipients": "recipient", "texts": "text"}


def _fill(conn: Connection, terms: Terms, rows: Sequence[Any], taken: Taken) -> None:
    """Look at what is in the messages, and keep those that are to be sent."""
    if not rows:
        return
    values = {"ids": [row["id"] for row in rows], "optional": list(terms.rules.may_opt_out)}
    found = conn.execute(CONTENT, values).mappings().all()
    asked = ask(conn, found, terms.confirm, terms.look_up, terms.unsure)
    content: dict[int, list[Any]] = {row["id"]: [] for row in rows}
    waiting: dict[int, list[int]] = {}
    refused, done, sent_perhaps = [], [], []
    doubtful = {row["id"] for row in rows if row["doubtful"]}
    for one in found:
        if one["refused"]:
            refused.append(one["id"])
        elif one["kind"] in asked.unsure:
            waiting.setdefault(one["message"], []).append(one["id"])
        elif one["id"] in asked.wanted:
            content[one["message"]].append(one)
        elif one["message"] in doubtful:
            sent_perhaps.append(one["id"])
        else:
            done.append(one["id"])
    _settled(conn, refused, "withdrawn", OPTED_OUT, terms.now)
    _settled(conn, done, "withdrawn", NOT_WANTED, terms.now)
    # Wanted again one day, it would be told under a second id: that it was told stays possible.
    _settled(conn, sent_perhaps, "in_doubt", NOT_WANTED, terms.now)
    taken.withdrawn += len(refused) + len(done) + len(sent_perhaps)
    # One that may have been sent is not torn apart: it waits as a whole until it can be confirmed.
    held = [row["id"] for row in rows if row["doubtful"] and row["id"] in waiting]
    free = [number for message, ids in waiting.items() if message not in held for number in ids]
    if free:
        conn.execute(text("UPDATE notice SET message = NULL WHERE id = ANY(:ids)"), {"ids": free})
    follow = _following(conn, terms, rows)
    empty = []
    for row in rows:
        inside = content[row["id"]]
        if row["id"] in held:
            continue
        address, cause = _address(terms, inside, asked) if inside else ("", "")
        if cause and row["doubtful"]:  # it may have arrived while there was an address
            _settled(conn, [notice["id"] for notice in inside], "in_doubt", IN_DOUBT, terms.now)
            taken.in_doubt += [
                Unsent(notice["kind"], row["recipient"], IN_DOUBT) for notice in inside
            ]
        elif cause:
            _settled(conn, [notice["id"] for notice in inside], "undeliverable", cause, terms.now)
            taken.undeliverable += [
                Unsent(notice["kind"], row["recipient"], cause) for notice in inside
            ]
        if cause or not inside:
            empty.append(row)
        else:
            words = asked.texts.get(row["text"], "")
            more = follow.get(row["id"], 0)
            taken.messages.append(_message(terms, row, inside, address, words, more))
    _end_empty(conn, empty, terms.now)
    ids = [*(message.id for message in taken.messages), *held]
    copies = [message.id for message in taken.messages if message.doubtful]
    parameters = {"ids": ids, "copies": copies, "held": held, "until": terms.now + LEASE}
    conn.execute(TAKE, parameters)


def _address(terms: Terms, inside: Sequence[Any], asked: Asked) -> tuple[str, str]:
    """Return the newest known address of a message, and why it cannot be used."""
    known = [asked.addresses.get(notice["id"], notice["address"]) for notice in inside]
    address = next(filter(None, reversed(known)), "")
    # Where mail may go is said of the lists of people at work; a customer's address is anywhere.
    looked_up = any(notice["looked_up"] for notice in inside)
    return address, fault(terms.channel, address, () if looked_up else terms.rules.domains)


def _following(conn: Connection, terms: Terms, rows: Sequence[Any]) -> dict[int, int]:
    """By message, how many notices did not fit in; a second copy says nothing of it."""
    ids = [row["id"] for row in rows if not row["doubtful"]]
    found = conn.execute(FOLLOW, {"ids": ids, "unsure": sorted(terms.unsure)})
    return {row[0]: row[1] for row in found}


def _message(
    terms: Terms, row: Any, inside: Sequence[Any], address: str, words: str, more: int
) -> Claimed:
    names = [notice["name"] for notice in inside if notice["name"]]
    return Claimed(
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
        text=words,
        items=[Item(*(notice[name] for name in Item.__dataclass_fields__)) for notice in inside],
        refusable=all(notice["kind"] in terms.rules.may_opt_out for notice in inside),
        more=more,
    )


def _settled(conn: Connection, ids: list[int], state: str, cause: str, now: datetime) -> None:
    if ids:
        conn.execute(
            text(
                "UPDATE notice SET state = :state, cause = :cause, settled_at = :now,"
                " message = NULL WHERE id = ANY(:ids)"
            ),
            {"ids": ids, "state": state, "cause": cause, "now": now},
        )


def _end_empty(conn: Connection, rows: Sequence[Any], now: datetime) -> None:
    """End messages in which nothing is left; one that may have been sent keeps its day."""
    _end(conn, [row["id"] for row in rows if not row["doubtful"]], "dissolved", now)
    _end(conn, [row["id"] for row in rows if row["doubtful"]], "in_doubt", now)


def _end(conn: Connection, ids: Sequence[int], state: str, now: datetime) -> None:
    if ids:
        conn.execute(
            text(
                "UPDATE notice_message SET state = :state, claimed_until = NULL,"
                " next_try_at = NULL, settled_at = :now WHERE id = ANY(:ids)"
            ),
            {"ids": list(ids), "state": state, "now": now},
        )
