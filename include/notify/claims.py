"""Taking messages in hand: which are due, what is in them, and whether that is still wanted.

Whoever claims a message writes so, durably, before anything leaves: a message that was claimed and
not recorded afterwards may have been sent. Claims skip what another process has locked, so several
deliver at once and none waits; the unique index on recipient, channel and day has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from include.notify import queries
from include.notify.addresses import fault
from include.notify.asking import Asked, Confirm, LookUp, ask
from include.notify.letters import Item
from include.notify.names import IN_DOUBT, NOT_WANTED, OPTED_OUT
from include.notify.notice import ChannelKind
from include.policy.notices import NoticeRules

Place = tuple[str, str]
"""Where a search stands: recipient, and digest of the text or nothing."""

START: Place = ("", "")
LEASE = timedelta(minutes=5)  # whoever is alive renews it in time
MOST_NOTICES = 200  # in one message; nobody reads more, and a server may refuse it by its size
MOST_COPIES = 2  # of a message in doubt; what did not arrive by then is told to people


@dataclass(frozen=True)
class Claimed:
    """A message that this process may send.

    Attributes:
        doubtful: it may have been sent before.
        copies: how often it was sent while it was in doubt, this time included.
        tries: this one included.
        address: by which the recipient is reached.
        text: of a letter; empty for a digest.
        items: what is in it, at least one.
        refusable: whether the recipient may refuse every kind that is in it.
        more: how many notices for the recipient did not fit and follow in the next ones.
    """

    id: int
    message_id: str
    recipient: str
    urgent: bool
    tries: int
    created_at: datetime
    doubtful: bool
    copies: int
    name: str
    address: str = field(repr=False)
    text: str = field(repr=False)
    items: Sequence[Item]
    refusable: bool
    more: int = 0


@dataclass(frozen=True)
class Unsent:
    """A notice that did not reach its recipient, or may not have.

    Attributes:
        cause: one of `include.notify.names`.
    """

    kind: str
    recipient: str
    cause: str


@dataclass(frozen=True)
class Terms:
    """On what terms messages are claimed just now.

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
    """What came of a claim.

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
    conn.execute(queries.DISSOLVE, {"day": day, "now": now})


def claim_again(conn: Connection, terms: Terms, *, letters: bool) -> Taken:
    """Take messages that wait for another try, or that were cut off: letters, or digests."""
    rows = conn.execute(queries.AGAIN, _values(terms) | {"letters": letters}).mappings().all()
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
    found = conn.execute(queries.DUE, values | {"after": after[0], "after_text": after[1]}).all()
    taken = Taken(last=(found[-1][0], found[-1][1]) if len(found) == terms.size else None)
    if not found:
        return taken
    values |= {"recipients": [one[0] for one in found], "texts": [one[1] for one in found]}
    values["domain"] = terms.domain
    rows = conn.execute(queries.MAKE, values).mappings().all()
    if rows:
        _attach(conn, terms, rows, urgent=urgent)
        _fill(conn, terms, rows, taken)
    return taken


def report_in_doubt(conn: Connection, ids: Sequence[int], now: datetime) -> list[Unsent]:
    """Settle messages that may have been sent, and return what is in them."""
    values = {"ids": list(ids), "now": now}
    conn.execute(
        text(
            "UPDATE notice_message SET state = 'in_doubt', claimed_until = NULL,"
            " next_try_at = NULL, settled_at = :now WHERE id = ANY(:ids)"
        ),
        values,
    )
    found = conn.execute(
        text(
            "UPDATE notice SET state = 'in_doubt', cause = 'in_doubt', settled_at = :now"
            " WHERE message = ANY(:ids) AND state = 'pending' RETURNING kind, recipient, cause"
        ),
        values,
    )
    return [Unsent(*row) for row in found]


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
    conn.execute(queries.ATTACH, values)


_PAIR = {"ids": "id", "recipients": "recipient", "texts": "text"}


def _fill(conn: Connection, terms: Terms, rows: Sequence[Any], taken: Taken) -> None:
    """Look at what is in the messages, and keep those that are to be sent."""
    if not rows:
        return
    values = {"ids": [row["id"] for row in rows], "optional": list(terms.rules.may_opt_out)}
    found = conn.execute(queries.CONTENT, values).mappings().all()
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
    free = [one for message, ids in waiting.items() if message not in held for one in ids]
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
            _settled(conn, [one["id"] for one in inside], "in_doubt", IN_DOUBT, terms.now)
            taken.in_doubt += [Unsent(one["kind"], row["recipient"], IN_DOUBT) for one in inside]
        elif cause:
            _settled(conn, [one["id"] for one in inside], "undeliverable", cause, terms.now)
            taken.undeliverable += [Unsent(one["kind"], row["recipient"], cause) for one in inside]
        if cause or not inside:
            empty.append(row)
        else:
            words = asked.texts.get(row["text"], "")
            more = follow.get(row["id"], 0)
            taken.messages.append(_message(terms, row, inside, address, words, more))
    _end_empty(conn, empty, terms.now)
    ids = [*(one.id for one in taken.messages), *held]
    copies = [one.id for one in taken.messages if one.doubtful]
    given = {"ids": ids, "copies": copies, "held": held, "until": terms.now + LEASE}
    conn.execute(queries.TAKE, given)


def _address(terms: Terms, inside: Sequence[Any], asked: Asked) -> tuple[str, str]:
    """The address of a message, the newest one that is known, and why it cannot be used."""
    found = [asked.addresses.get(one["id"], one["address"]) for one in inside]
    address = next((one for one in reversed(found) if one), "")
    # Where mail may go is said of the lists of people at work; a customer's address is anywhere.
    looked_up = any(one["looked_up"] for one in inside)
    return address, fault(terms.channel, address, () if looked_up else terms.rules.domains)


def _following(conn: Connection, terms: Terms, rows: Sequence[Any]) -> dict[int, int]:
    """By message, how many notices did not fit in; a second copy says nothing of it."""
    ids = [row["id"] for row in rows if not row["doubtful"]]
    found = conn.execute(queries.FOLLOW, {"ids": ids, "unsure": sorted(terms.unsure)})
    return {row[0]: row[1] for row in found}


def _message(
    terms: Terms, row: Any, inside: Sequence[Any], address: str, words: str, more: int
) -> Claimed:
    names = [one["name"] for one in inside if one["name"]]
    return Claimed(
        id=row["id"],
        message_id=row["message_id"],
        recipient=row["recipient"],
        urgent=row["urgent"],
        tries=row["tries"] + 1,
        created_at=row["created_at"],
        doubtful=row["doubtful"],
        copies=row["copies"] + row["doubtful"],
        name=names[-1] if names else "",
        address=address,
        text=words,
        items=[
            Item(one["id"], one["kind"], one["key"], one["heading"], one["line"], one["due_on"])
            for one in inside
        ],
        refusable=all(one["kind"] in terms.rules.may_opt_out for one in inside),
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
    for state in ("dissolved", "in_doubt"):
        ids = [row["id"] for row in rows if row["doubtful"] is (state == "in_doubt")]
        if ids:
            conn.execute(
                text(
                    "UPDATE notice_message SET state = :state, claimed_until = NULL,"
                    " next_try_at = NULL, settled_at = :now WHERE id = ANY(:ids)"
                ),
                {"ids": ids, "state": state, "now": now},
            )
