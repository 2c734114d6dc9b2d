"""Random orders of queueing, withdrawing and delivering, with every kind of fault."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from include.messages import verbatim
from include.notify import outbox, outcomes
from include.policy.rules import NotificationRules
from tests.notify.notify_fixtures import (
    KIND,
    NOTICE_HEADING,
    THURSDAY,
    Post,
    notice_text,
    notification,
)
from tests.support.smtp import DROP, Received, Smtp

pytestmark = pytest.mark.fault
PEOPLE = ("E1", "E2", "E3")
TROUBLE = st.sampled_from(["none", "later", "refused", "cut", "down", "killed", "database"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("queue"), st.sampled_from(PEOPLE), st.booleans()),
        st.tuples(st.just("write"), st.sampled_from(PEOPLE), st.booleans()),
        st.tuples(st.just("move"), st.sampled_from(PEOPLE)),
        st.tuples(st.just("withdraw"), st.sampled_from(PEOPLE)),
        st.tuples(st.just("deliver"), TROUBLE, st.sampled_from(PEOPLE)),
        st.tuples(st.just("wait"), st.sampled_from([1, 10, 600, 1440])),
    ),
    max_size=14,
)


@dataclass
class Play:
    """The actions of a test so far, and their results."""

    post: Post
    server: Smtp
    queued: list[str] = field(default_factory=list)
    withdrawn: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)
    moves: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.post.addresses = {KIND: self.look_up}

    def look_up(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the current address of each notice's recipient.

        After a plus sign, the address contains how often the recipient has moved.
        """
        people = {key: key.partition("/")[0] for key in keys}
        return {
            key: f"{person.lower()}+{self.moves[person]}@courier.example"
            for key, person in people.items()
        }

    def write(self, person: str, urgent: bool) -> None:
        """Queue a notice to a person. Its address is looked up when it is sent."""
        number = len(self.queued)
        key = f"{person}/{number}"
        text = self.post.keep(notice_text(part=f"#{key}#"))
        more = {"text": text, "looked_up": True, "name": "", "address": ""}
        self.post.queue(notification(number, person, urgent=urgent, **more))
        self.queued.append(key)

    def move(self, person: str) -> None:
        """Change the current address of a person."""
        self.moves[person] += 1

    def queue(self, person: str, urgent: bool) -> None:
        number = len(self.queued)
        key = f"{person}/{number}"
        self.post.queue(notification(number, person, line=verbatim(f"#{key}#"), urgent=urgent))
        self.queued.append(key)

    def withdraw(self, person: str) -> None:
        """Withdraw all pending notifications of a person."""
        with self.post.state.begin() as conn:
            keys = [item for item in outbox.pending(conn, KIND) if item.startswith(person)]
            outbox.withdraw(conn, KIND, keys, "left", self.post.clock.now())
        states = self.post.states()
        self.withdrawn |= {key for key in keys if states[key] == "withdrawn"}

    def wait(self, minutes: int) -> None:
        self.post.clock.on(minutes=minutes)

    def deliver(self, trouble: str, person: str) -> None:
        with self._in(trouble, person.lower()), suppress(DBAPIError):
            self.post.deliver()

    @contextmanager
    def _in(self, trouble: str, person: str) -> Iterator[None]:
        answers = {
            "later": ("RCPT", "450 busy"),
            "refused": ("RCPT", "550 unknown"),
            "cut": ("DATA", DROP),
        }
        if trouble == "down":
            self.server.stop()
        hit = False

        def rule(phase: str, address: str) -> str | None:
            nonlocal hit
            if not address.startswith((f"{person}@", f"{person}+")):
                return None
            if trouble in answers and phase == answers[trouble][0]:
                if phase == "DATA":
                    self._doubt()
                return answers[trouble][1]
            if trouble in ("killed", "database") and phase == "DATA" and not hit:
                hit = True
                self._doubt()
                self.post.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <>"
                    " pg_backend_pid() AND datname = current_database()"
                )
            return None

        self.server.rule = rule
        # A killed process no longer releases its claims.
        lost = mock.patch.object(outcomes, "release") if trouble == "killed" else nullcontext()
        with lost:
            yield
        if hit:
            self._doubt()  # including mails of the other connection
        self.server.rule = lambda _phase, _address: None
        if trouble == "down":
            self.server.start()

    def _doubt(self) -> None:
        """Note the ids of all mails that the server has read. These mails may be sent again."""
        self.doubted |= {item.message_id for item in self.server.read}

    def end(self) -> None:
        """Deliver without faults until no notification is pending."""
        day = self.post.clock.moment.replace(hour=THURSDAY.hour, minute=0)
        for number in range(1, 5):
            self.post.clock.moment = day + timedelta(days=number)
            self.post.deliver()

    def in_hands(self) -> dict[str, list[Received]]:
        """Return the mails that the server read completely, by key of their notifications."""
        mails = defaultdict(list)
        for item in self.server.read:
            for key in set(re.findall(r"#([^#]+)#", item.text("plain"))):
                mails[key].append(item)
        return mails


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_every_notification_has_a_final_state_and_at_most_one_message_id_after_random_events(
    state: Engine, server: Smtp, steps: list[tuple[str, ...]]
) -> None:
    with state.begin() as conn:
        conn.execute(
            text("TRUNCATE notification, notification_message, notification_text RESTART IDENTITY")
        )
    server.read.clear()
    server.taken.clear()
    post = Post(state, server.port, rules=NotificationRules(workdays_only=False))
    play = Play(post, server)
    for name, *words in steps:
        getattr(play, name)(*words)
    play.end()
    states, mails = post.states(), play.in_hands()
    for key in play.queued:
        ids = [item.message_id for item in mails[key]]
        assert len(set(ids)) <= 1, "two messages say the same"
        if len(ids) > 1:
            assert set(ids) <= play.doubted
        assert states[key] in {"sent", "withdrawn", "undeliverable", "in_doubt"}
        assert bool(ids) is (states[key] in {"sent", "in_doubt"})
        assert states[key] != "in_doubt" or set(ids) <= play.doubted
        assert (states[key] == "withdrawn") is (key in play.withdrawn)
    digests = {
        (item.recipient, item.message_id.split(".")[0], item.message_id)
        for item in server.read
        if "紧急" not in str(item.mail["Subject"])
        and NOTICE_HEADING not in str(item.mail["Subject"])
    }
    assert len({digest[:2] for digest in digests}) == len(digests), "two digests of a day"
    notices = [item for item in server.read if NOTICE_HEADING in str(item.mail["Subject"])]
    assert all(item.text("plain").count("#") == 4 for item in notices), (
        "a notice is a message of its own"
    )
