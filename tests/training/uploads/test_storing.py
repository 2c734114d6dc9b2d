"""All of a file is stored or nothing; the newest roster counts, and completions add up."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from include.local.postgres import EmbeddedPostgres
from include.services.errors import ServiceError, UsageError
from include.state.connect import engine
from include.training.uploads import storing
from include.training.uploads.cells import UploadRefused
from include.training.uploads.reading import Kind
from include.training.uploads.storing import Stored
from tests.support.databases import fresh
from tests.training.uploads.support import (
    COMPLETIONS,
    COURSES,
    ROSTER,
    ROSTER_READ,
    upload,
    written,
)

NOW = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """A state database."""
    with fresh(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """A transaction in it, of which nothing stays."""
    with state.connect() as made:
        yield made
        made.rollback()


def store(
    conn: Connection, content: bytes, kind: Kind = Kind.ROSTER, by: str = "chen", **more: Any
) -> Stored:
    return storing.store(conn, upload(content, kind), by=by, at=NOW, **more)


def rows(conn: Connection, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    found = conn.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3"))
    return [tuple(one) for one in found]


def people(count: int, first: int = 1) -> bytes:
    return written([ROSTER[1] | {"person": f"E{at:04}"} for at in range(first, first + count)])


def taken(*lines: str) -> bytes:
    names = ("person", "course", "version", "completed_on", "passed")
    return written([dict(zip(names, one.split(","), strict=True)) for one in lines])


def test_a_roster_is_stored_as_it_was_read(conn: Connection) -> None:
    """With the upload it came in, and what that was."""
    done = store(conn, written(ROSTER, encoding="GB18030", delimiter=";"))
    assert (done.same, done.lines, done.added, done.replaced) == (False, 2, 2, None)
    assert done.form == "GB18030, semicolon"
    assert [one[1:] for one in rows(conn, "training_roster")] == ROSTER_READ
    assert {one[0] for one in rows(conn, "training_roster")} == {done.id}
    (past,) = storing.listed(conn)
    assert (past.id, past.kind, past.lines) == (done.id, Kind.ROSTER, 2)
    assert (past.uploaded_by, past.uploaded_at, past.stands) == ("chen", NOW, True)


def test_a_roster_takes_the_place_of_the_one_before(conn: Connection) -> None:
    """Somebody who stands in it no more is gone; the upload stays in the history."""
    first = store(conn, people(3))
    second = store(conn, people(2, first=3))
    assert (second.replaced, second.added) == (3, 2)
    assert [one[0] for one in rows(conn, "training_roster", "person, name, mail")] == [
        "E0003",
        "E0004",
    ]
    assert [(one.id, one.stands) for one in storing.listed(conn)] == [
        (second.id, True),
        (first.id, False),
    ]


def test_courses_take_the_place_of_those_before(conn: Connection) -> None:
    """And leave the roster alone."""
    store(conn, people(1))
    store(conn, written(COURSES), Kind.COURSES)
    done = store(conn, written(COURSES[1:]), Kind.COURSES)
    assert done.replaced == 2
    assert rows(conn, "training_course", "course, version, due_each_year") == [("LAW", 2, "03-31")]
    assert len(rows(conn, "training_roster")) == 1
    assert [(str(one.kind), one.stands) for one in storing.listed(conn)] == [
        ("courses", True),
        ("courses", False),
        ("roster", True),
    ]


def test_completions_add_up_and_none_is_stored_twice(conn: Connection) -> None:
    """Neither within a file nor over several of them."""
    kind = Kind.COMPLETIONS
    first = store(conn, taken("E1,LAW,1,2026-01-05,yes", "E1,LAW,1,2026/1/5,是"), kind)
    assert (first.lines, first.added, first.mended) == (2, 1, 0)
    second = store(conn, taken("E1,LAW,1,2026-01-05,yes", "E1,LAW,2,2026-01-05,yes"), kind)
    assert (second.lines, second.added, second.replaced) == (2, 1, None)
    columns = "person, course, version, completed_on, passed, upload_id"
    assert rows(conn, "training_completion", columns) == [
        ("E1", "LAW", 1, date(2026, 1, 5), True, first.id),
        ("E1", "LAW", 2, date(2026, 1, 5), True, second.id),
    ]
    assert all(one.stands for one in storing.listed(conn))


@pytest.mark.parametrize("passed", [("no", "yes"), ("yes", "no")])
@pytest.mark.parametrize("together", [True, False])
def test_of_two_results_of_one_day_passed_counts(
    conn: Connection, passed: tuple[str, str], together: bool
) -> None:
    """Who fails in the morning and passes at noon has passed, in whichever order it comes in."""
    lines = [f"E1,LAW,1,2026-01-05,{one}" for one in passed]
    done = [
        store(conn, taken(*part), Kind.COMPLETIONS)
        for part in ([lines] if together else zip(lines))
    ]
    assert rows(conn, "training_completion", "person, course, passed") == [("E1", "LAW", True)]
    assert sum(one.mended for one in done) == (not together and passed[0] == "no")


def test_the_same_file_again_changes_nothing(conn: Connection) -> None:
    """It says so, and is not entered in the history again."""
    for kind, content in ((Kind.ROSTER, people(2)), (Kind.COMPLETIONS, written(COMPLETIONS))):
        first = store(conn, content, kind)
        again = store(conn, content, kind, by="li.na")
        assert (again.same, again.id, again.lines) == (True, first.id, 2)
    assert len(storing.listed(conn)) == 2


def test_an_earlier_roster_may_come_back(conn: Connection) -> None:
    """Whoever notices that the newest one was wrong uploads the one before again."""
    store(conn, people(2))
    store(conn, people(2, first=3))
    back = store(conn, people(2))
    assert (back.same, back.replaced) == (False, 2)
    assert rows(conn, "training_roster", "person, name, head")[0][0] == "E0001"


def test_a_completion_file_is_known_however_many_came_after_it(conn: Connection) -> None:
    """Its rows stand still."""
    store(conn, taken("E1,LAW,1,2026-01-05,yes"), Kind.COMPLETIONS)
    store(conn, taken("E2,LAW,1,2026-01-05,yes"), Kind.COMPLETIONS)
    assert store(conn, taken("E1,LAW,1,2026-01-05,yes"), Kind.COMPLETIONS).same


@pytest.mark.parametrize(("after", "taken"), [(5, True), (4, False)])
def test_a_roster_that_lost_more_than_half_of_its_lines_is_refused(
    state: Engine, after: int, taken: bool
) -> None:
    """A truncated export would end everybody's reminders; --shrinks says that it is meant so."""
    with state.connect() as conn:
        store(conn, people(10))
        if taken:
            assert store(conn, people(after)).replaced == 10
            return
        with pytest.raises(UsageError, match=f"has {after} lines, and the one before has 10"):
            store(conn, people(after))
    with state.connect() as conn:
        store(conn, people(10))
        assert store(conn, people(after), shrinks=True).added == after


def test_nothing_of_a_file_with_a_fault_is_stored(state: Engine) -> None:
    """The roster before it stands, also when the last line of many is wrong."""
    with state.begin() as conn:
        number = store(conn, people(2000)).id
    with pytest.raises(UploadRefused), state.begin() as conn:
        store(conn, people(1999, first=5000) + b"E9999,x\n")
    with state.begin() as conn:
        assert {one[0] for one in rows(conn, "training_roster")} == {number}
        assert [one.id for one in storing.listed(conn)] == [number]
        conn.execute(text("TRUNCATE training_roster, training_course, training_completion"))
        conn.execute(text("DELETE FROM training_upload"))


@pytest.mark.parametrize("by", ["", " "])
def test_somebody_hands_it_in(conn: Connection, by: str) -> None:
    """Otherwise nobody could be asked."""
    with pytest.raises(UsageError, match="Nobody is named"):
        store(conn, people(1), by=by)


def test_a_file_that_changes_while_it_is_read_is_refused(conn: Connection) -> None:
    """What is stored would not be what its digest says."""

    class Growing(io.BytesIO):
        def seek(self, to: int, whence: int = 0, /) -> int:
            super().seek(0, io.SEEK_END)
            self.write(b"\n")
            return super().seek(to, whence)

    growing = upload(b"")
    growing.stream = Growing(people(3))
    with pytest.raises(UsageError, match="was changed while it was read"):
        storing.store(conn, growing, by="chen", at=NOW)


def test_two_uploads_come_one_after_the_other(
    state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits, and is refused when it takes too long."""
    monkeypatch.setattr(storing, "_LOCK_TIMEOUT", storing.SQL("SET LOCAL lock_timeout = '50ms'"))
    with state.connect() as first:
        store(first, people(2))
        with (
            state.connect() as second,
            pytest.raises(ServiceError, match="Another upload has been going on"),
        ):
            store(second, people(2, first=3))


def test_a_lost_database_is_said(state: Engine) -> None:
    """And nothing is stored."""
    cut = threading.Event()
    with state.connect() as conn:
        number = conn.scalar(text("SELECT pg_backend_pid()"))

        class Cutting(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if not cut.is_set():
                    cut.set()
                    with state.begin() as other:
                        other.execute(text("SELECT pg_terminate_backend(:n)"), {"n": number})
                return super().read(size)

        lost = upload(b"")
        lost.stream = Cutting(people(3))
        with pytest.raises(ServiceError, match="The state database was lost"):
            storing.store(conn, lost, by="chen", at=NOW)
        conn.invalidate()


LINES = st.tuples(
    st.sampled_from(["E1", "E2"]),
    st.sampled_from(["LAW", "ONB"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["2026-01-05", "2026-01-06"]),
    st.sampled_from(["yes", "no"]),
).map(",".join)


@settings(max_examples=25)
@given(files=st.lists(st.lists(LINES, min_size=1, max_size=6), min_size=1, max_size=4))
def test_completions_come_to_the_same_however_they_are_divided(
    state: Engine, files: list[list[str]]
) -> None:
    """In one file or in several, in any order, with repetitions."""
    columns = "person, course, version, completed_on, passed"
    found = []
    for parts in (files, files[::-1], [[line for one in files for line in one]]):
        with state.connect() as conn:
            for part in parts:
                store(conn, taken(*part), Kind.COMPLETIONS)
            found.append(sorted(rows(conn, "training_completion", columns)))
            conn.rollback()
    assert found[0] == found[1] == found[2]
    assert len(set(map(tuple, (one[:4] for one in found[0])))) == len(found[0])
