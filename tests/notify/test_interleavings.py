"""Random orders of queueing, withdrawing, delivering and every kind of trouble."""

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
from include.notify import marks, outbox
from include.policy.rules import NoticeRules
from tests.notify.rig import KIND, LETTER, THURSDAY, Post, letter, notice
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
    """What was done so far, and what came of it."""

    post: Post
    server: Smtp
    queued: list[str] = field(default_factory=list)
    withdrawn: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)
    moves: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.post.addresses = {KIND: self.look_up}

    def look_up(self, keys: Sequence[str]) -> dict[str, str]:
        """Where people are now; the server knows them by what stands before the plus."""
        people = {key: key.partition("/")[0] for key in keys}
        return {
            key: f"{who.lower()}+{self.moves[who]}@courier.example" for key, who in people.items()
        }

    def write(self, person: str, urgent: bool) -> None:
        """Queue a letter whose address is looked up."""
        number = len(self.queued)
        key = f"{person}/{number}"
        text = self.post.keep(letter(part=f"#{key}#"))
        more = {"text": text, "looked_up": True, "name": "", "address": ""}
        self.post.queue(notice(number, person, urgent=urgent, **more))
        self.queued.append(key)

    def move(self, person: str) -> None:
        """The address list says another address from now on."""
        self.moves[person] += 1

    def queue(self, person: str, urgent: bool) -> None:
        number = len(self.queued)
        key = f"{person}/{number}"
        self.post.queue(notice(number, person, line=verbatim(f"#{key}#"), urgent=urgent))
        self.queued.append(key)

    def withdraw(self, person: str) -> None:
        """Everything of a person that can be taken back."""
        with self.post.state.begin() as conn:
            keys = [one for one in outbox.pending(conn, KIND) if one.startswith(person)]
            outbox.withdraw(conn, KIND, keys, "left", self.post.clock.now())
        states = self.post.states()
        self.withdrawn |= {one for one in keys if states[one] == "withdrawn"}

    def wait(self, minutes: int) -> None:
        self.post.clock.on(minutes=minutes)

    def deliver(self, trouble: str, person: str) -> None:
        with self._in(trouble, person.lower()), suppress(DBAPIError):
            self.post.deliver()

    @contextmanager
    def _in(self, trouble: str, who: str) -> Iterator[None]:
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
            if not address.startswith((f"{who}@", f"{who}+")):
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
        # A killed process lets go of nothing any more.
        lost = mock.patch.object(marks, "released") if trouble == "killed" else nullcontext()
        with lost:
            yield
        if hit:
            self._doubt()  # of the other line's mails too
        self.server.rule = lambda _phase, _address: None
        if trouble == "down":
            self.server.start()

    def _doubt(self) -> None:
        """Any mail that was read in this delivery and not recorded may come again."""
        self.doubted |= {one.message_id for one in self.server.read}

    def end(self) -> None:
        """Without trouble, until nothing is left."""
        day = self.post.clock.moment.replace(hour=THURSDAY.hour, minute=0)
        for number in range(1, 5):
            self.post.clock.moment = day + timedelta(days=number)
            self.post.deliver()

    def in_hands(self) -> dict[str, list[Received]]:
        """Mails that the server had whole, by key of the notices in them."""
        found = defaultdict(list)
        for one in self.server.read:
            for key in set(re.findall(r"#([^#]+)#", one.text("plain"))):
                found[key].append(one)
        return found


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_nothing_is_lost_and_nothing_is_told_twice(
    state: Engine, server: Smtp, steps: list[tuple[str, ...]]
) -> None:
    """A copy has the id of the first and followed a doubt; what was taken back never came."""
    with state.begin() as conn:
        conn.execute(text("TRUNCATE notice, notice_message, notice_text RESTART IDENTITY"))
    server.read.clear()
    server.taken.clear()
    post = Post(state, server.port, rules=NoticeRules(workdays_only=False))
    play = Play(post, server)
    for name, *words in steps:
        getattr(play, name)(*words)
    play.end()
    states, found = post.states(), play.in_hands()
    for key in play.queued:
        ids = [one.message_id for one in found[key]]
        assert len(set(ids)) <= 1, "two messages say the same"
        if len(ids) > 1:
            assert set(ids) <= play.doubted
        assert states[key] in {"sent", "withdrawn", "undeliverable", "in_doubt"}
        assert bool(ids) is (states[key] in {"sent", "in_doubt"})
        assert states[key] != "in_doubt" or set(ids) <= play.doubted
        assert (states[key] == "withdrawn") is (key in play.withdrawn)
    digests = {
        (one.recipient, one.message_id.split(".")[0], one.message_id)
        for one in server.read
        if "紧急" not in str(one.mail["Subject"]) and LETTER not in str(one.mail["Subject"])
    }
    assert len({one[:2] for one in digests}) == len(digests), "two digests of a day"
    letters = [one for one in server.read if LETTER in str(one.mail["Subject"])]
    assert all(one.text("plain").count("#") == 4 for one in letters), "a letter is alone"
