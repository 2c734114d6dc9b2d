"""The timeline is appended to, never changed, and shows when it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from include.incident import register, timeline
from include.incident.names import Kind
from include.incident.timeline import Entry
from include.messages import _, verbatim
from include.services.clock import FixedClock
from include.services.errors import UsageError
from tests.incident.test_register import NOW, opened

CLOCK = FixedClock(NOW)


def noted(conn: Connection, incident: int, words: str = "x", **more: object) -> Entry:
    return timeline.append(
        conn, incident, Kind.NOTE, verbatim(words), by="E00001", clock=CLOCK, **more
    )  # type: ignore[arg-type]  # as typed above


def test_each_entry_seals_the_one_before(conn: Connection) -> None:
    """Places have no gaps, and an outsider can work the digests out with a JSON library alone."""
    found = opened(conn)
    noted(conn, found.id, "锁定账号")
    noted(conn, found.id, happened_at=NOW - timedelta(hours=2), data={"n": 1})
    entries = timeline.entries(conn, found.id)
    assert [one.place for one in entries] == [1, 2, 3]
    assert timeline.verify(found.number, entries) is None
    assert timeline.head(entries) == entries[-1].sha256
    previous = "0" * 64
    for one in entries:
        content = {
            "incident": found.number,
            "place": one.place,
            "kind": str(one.kind),
            "recorded_at": one.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "happened_at": one.happened_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "by": one.by,
            "words": one.words.model_dump(mode="json"),
            "data": dict(one.data),
            "previous": previous,
        }
        plain = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(plain.encode()).hexdigest()
        assert previous == one.sha256


def test_an_entry_of_a_repeated_task_is_entered_once(conn: Connection) -> None:
    """It comes back as it was, whatever is said the second time."""
    found = opened(conn)
    first = noted(conn, found.id, "first", once="a")
    assert noted(conn, found.id, "second", once="a") == first
    assert len(timeline.entries(conn, found.id)) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE incident_entry SET by = 'somebody'",
        "DELETE FROM incident_entry WHERE place = 2",
        "TRUNCATE incident_entry",
    ],
)
def test_the_database_refuses_to_change_what_stands(conn: Connection, statement: str) -> None:
    """Not the code alone."""
    noted(conn, opened(conn).id)
    with pytest.raises(IntegrityError, match="history"), conn.begin_nested():
        conn.execute(text(statement))


def test_a_moment_to_come_is_refused(conn: Connection) -> None:
    """What has not happened is not entered, and neither is a float that JSON changes."""
    found = opened(conn)
    with pytest.raises(UsageError, match="yet to come"):
        noted(conn, found.id, happened_at=NOW + timedelta(seconds=1))
    with pytest.raises(TypeError, match="float"):
        noted(conn, found.id, data={"n": [0.1]})
    with pytest.raises(UsageError, match="no incident 999"):
        noted(conn, 999)


def test_many_who_write_at_once_make_one_chain(state: Engine) -> None:
    """Whoever comes second waits for the first."""
    with state.begin() as conn:
        found = opened(conn, "chain", year=2031, what="Many write at once")

    def write(number: int) -> None:
        with state.begin() as conn:
            noted(conn, found.id, str(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(24)))
    with state.connect() as conn:
        entries = timeline.entries(conn, found.id)
    assert len(entries) == 25
    assert timeline.verify(found.number, entries) is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_changed_left_out_or_moved_is_seen(data: st.DataObject) -> None:
    """At the first entry that does not hold, or behind it."""
    chain: list[Entry] = []
    for place in range(1, 6):
        row = {
            "place": place, "kind": "note", "recorded_at": NOW, "happened_at": NOW, "by": "a",
            "words": _("{n} notes", n=place).model_dump(mode="json"), "data": {"n": place},
            "previous": timeline.head(chain),
        }  # fmt: skip
        sha256 = timeline.digest("INC-2026-0001", row)
        chain.append(
            Entry(
                place=place, kind=Kind.NOTE, recorded_at=NOW, happened_at=NOW, by="a",
                words=_("{n} notes", n=place), data={"n": place}, previous=row["previous"],
                sha256=sha256,
            )  # type: ignore[arg-type]  # previous is a text
        )  # fmt: skip
    assert timeline.verify("INC-2026-0001", chain) is None
    assert timeline.verify("INC-2026-0002", chain) is not None
    at = data.draw(st.integers(0, 3))  # the last one is what bundles keep
    changed: dict[str, object] = data.draw(
        st.sampled_from(
            [
                {"by": "b"},
                {"happened_at": NOW - timedelta(microseconds=1)},
                {"data": {"n": 99}},
                {"words": verbatim("other")},
                {"kind": Kind.CLOSED},
            ]
        )
    )
    tampered = list(chain)
    tampered[at] = dataclasses.replace(chain[at], **changed)  # type: ignore[arg-type]
    broken = timeline.verify("INC-2026-0001", tampered)
    assert broken is not None
    assert broken.place == at + 1
    assert timeline.verify("INC-2026-0001", [*chain[:at], *chain[at + 1 :]]) is not None


def test_an_entry_that_was_forged_with_its_digest_is_seen(conn: Connection) -> None:
    """Whoever knows the rule works the digest out again; the next entry holds the old one."""
    found = opened(conn)
    for words in ("first", "second"):
        noted(conn, found.id, words)
    entries = timeline.entries(conn, found.id)
    row = timeline.as_row(entries[1]) | {"words": verbatim("forged").model_dump(mode="json")}
    forged = dataclasses.replace(
        entries[1], words=verbatim("forged"), sha256=timeline.digest(found.number, row)
    )
    broken = timeline.verify(found.number, [entries[0], forged, entries[2]])
    assert broken is not None
    assert broken.place == 3
    assert broken.reason.text == "it does not follow the entry before"
    assert timeline.verify(found.number, [entries[0], forged]) is None  # the end was cut off


def test_an_entry_keeps_signs_that_no_database_takes(conn: Connection) -> None:
    """They are written out, and the chain holds after a round through the database."""
    found = opened(conn)
    noted(conn, found.id, "a\x00b\ud800c\u202e", data={"k\x00": "\x00"})
    entries = timeline.entries(conn, found.id)
    assert timeline.verify(found.number, entries) is None
    assert register.get(conn, found.number.lower()).id == found.id
