"""Tests that timeline entries are only appended, and that a changed entry is detected."""

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
from include.incident.incident_ids import Kind
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


def test_entries_form_chain_of_digests(conn: Connection) -> None:
    incident = opened(conn)
    noted(conn, incident.id, "锁定账号")
    noted(conn, incident.id, happened_at=NOW - timedelta(hours=2), data={"n": 1})
    entries = timeline.entries(conn, incident.id)
    assert [entry.place for entry in entries] == [1, 2, 3]
    assert timeline.verify_timeline(incident.number, entries) is None
    assert timeline.last_digest(entries) == entries[-1].sha256
    previous = "0" * 64
    for entry in entries:
        content = {
            "incident": incident.number,
            "place": entry.place,
            "kind": str(entry.kind),
            "recorded_at": entry.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "happened_at": entry.happened_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "by": entry.by,
            "words": entry.words.model_dump(mode="json"),
            "data": dict(entry.data),
            "previous": previous,
        }
        plain = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(plain.encode()).hexdigest()
        assert previous == entry.sha256


def test_entry_with_same_key_is_appended_once(conn: Connection) -> None:
    incident = opened(conn)
    first = noted(conn, incident.id, "first", once="a")
    assert noted(conn, incident.id, "second", once="a") == first
    assert len(timeline.entries(conn, incident.id)) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE incident_entry SET by = 'somebody'",
        "DELETE FROM incident_entry WHERE place = 2",
        "TRUNCATE incident_entry",
    ],
)
def test_database_refuses_changes_of_entries(conn: Connection, statement: str) -> None:
    noted(conn, opened(conn).id)
    with pytest.raises(IntegrityError, match="history"), conn.begin_nested():
        conn.execute(text(statement))


def test_append_raises_error_for_unknown_incident_future_time_or_float_value(
    conn: Connection,
) -> None:
    incident = opened(conn)
    with pytest.raises(UsageError, match="in the future"):
        noted(conn, incident.id, happened_at=NOW + timedelta(seconds=1))
    with pytest.raises(TypeError, match="float"):
        noted(conn, incident.id, data={"n": [0.1]})
    with pytest.raises(UsageError, match="incident 999 does not exist"):
        noted(conn, 999)


def test_concurrent_appends_form_one_chain(state: Engine) -> None:
    with state.begin() as conn:
        incident = opened(conn, "chain", year=2031, what="Many write at once")

    def write(number: int) -> None:
        with state.begin() as conn:
            noted(conn, incident.id, str(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(24)))
    with state.connect() as conn:
        entries = timeline.entries(conn, incident.id)
    assert len(entries) == 25
    assert timeline.verify_timeline(incident.number, entries) is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_verify_timeline_detects_changed_and_missing_entries(data: st.DataObject) -> None:
    chain: list[Entry] = []
    for position in range(1, 6):
        row = {
            "place": position, "kind": "note", "recorded_at": NOW, "happened_at": NOW, "by": "a",
            "words": _("{n} notes", n=position).model_dump(mode="json"), "data": {"n": position},
            "previous": timeline.last_digest(chain),
        }  # fmt: skip
        sha256 = timeline.digest("INC-2026-0001", row)
        chain.append(
            Entry(
                place=position, kind=Kind.NOTE, recorded_at=NOW, happened_at=NOW, by="a",
                words=_("{n} notes", n=position), data={"n": position}, previous=row["previous"],
                sha256=sha256,
            )  # type: ignore[arg-type]  # previous is a text
        )  # fmt: skip
    assert timeline.verify_timeline("INC-2026-0001", chain) is None
    assert timeline.verify_timeline("INC-2026-0002", chain) is not None
    index = data.draw(st.integers(0, 3))  # bundles contain the digest of the last entry
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
    tampered[index] = dataclasses.replace(chain[index], **changed)  # type: ignore[arg-type]
    broken = timeline.verify_timeline("INC-2026-0001", tampered)
    assert broken is not None
    assert broken.place == index + 1
    assert (
        timeline.verify_timeline("INC-2026-0001", [*chain[:index], *chain[index + 1 :]]) is not None
    )


def test_verify_timeline_detects_changed_entry_with_recomputed_digest(conn: Connection) -> None:
    incident = opened(conn)
    for words in ("first", "second"):
        noted(conn, incident.id, words)
    entries = timeline.entries(conn, incident.id)
    row = timeline.as_row(entries[1]) | {"words": verbatim("forged").model_dump(mode="json")}
    forged = dataclasses.replace(
        entries[1], words=verbatim("forged"), sha256=timeline.digest(incident.number, row)
    )
    broken = timeline.verify_timeline(incident.number, [entries[0], forged, entries[2]])
    assert broken is not None
    assert broken.place == 3
    assert broken.reason.text == "the entry does not contain the digest of the previous entry"
    assert (
        timeline.verify_timeline(incident.number, [entries[0], forged]) is None
    )  # a removed end is not detected


def test_timeline_escapes_characters_that_database_cannot_store(conn: Connection) -> None:
    incident = opened(conn)
    noted(conn, incident.id, "a\x00b\ud800c\u202e", data={"k\x00": "\x00"})
    entries = timeline.entries(conn, incident.id)
    assert timeline.verify_timeline(incident.number, entries) is None
    assert register.get_incident(conn, incident.number.lower()).id == incident.id
