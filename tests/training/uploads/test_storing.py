"""Tests of storing uploads: all rows or none; rosters are replaced, and completions are added."""

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
from include.training.uploads.storing import StoredUpload
from tests.support.databases import temporary_database
from tests.training.uploads.support import (
    COMPLETIONS,
    COURSES,
    ROSTER,
    ROSTER_READ,
    csv_file,
    upload_of,
)

NOW = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Provide a state database."""
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """Provide a connection whose transaction is rolled back after the test."""
    with state.connect() as connection:
        yield connection
        connection.rollback()


def store(
    conn: Connection, content: bytes, kind: Kind = Kind.ROSTER, by: str = "chen", **more: Any
) -> StoredUpload:
    return storing.store_upload(conn, upload_of(content, kind), by=by, at=NOW, **more)


def table_rows(conn: Connection, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    result = conn.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3"))
    return [tuple(item) for item in result]


def roster_of(count: int, first: int = 1) -> bytes:
    return csv_file(
        [ROSTER[1] | {"person": f"E{number:04}"} for number in range(first, first + count)]
    )


def completions_of(*lines: str) -> bytes:
    names = ("person", "course", "version", "completed_on", "passed")
    return csv_file([dict(zip(names, line.split(","), strict=True)) for line in lines])


def test_upload_of_roster_stores_its_rows(conn: Connection) -> None:
    stored = store(conn, csv_file(ROSTER, encoding="GB18030", delimiter=";"))
    assert (stored.was_stored_before, stored.lines, stored.added, stored.replaced) == (
        False,
        2,
        2,
        None,
    )
    assert stored.file_format == "GB18030, semicolon"
    assert [row[1:] for row in table_rows(conn, "training_roster")] == ROSTER_READ
    assert {row[0] for row in table_rows(conn, "training_roster")} == {stored.id}
    (past,) = storing.list_uploads(conn)
    assert (past.id, past.kind, past.lines) == (stored.id, Kind.ROSTER, 2)
    assert (past.uploaded_by, past.uploaded_at, past.is_in_use) == ("chen", NOW, True)


def test_new_roster_replaces_earlier_roster_and_history_is_kept(conn: Connection) -> None:
    first = store(conn, roster_of(3))
    second = store(conn, roster_of(2, first=3))
    assert (second.replaced, second.added) == (3, 2)
    assert [row[0] for row in table_rows(conn, "training_roster", "person, name, mail")] == [
        "E0003",
        "E0004",
    ]
    assert [(item.id, item.is_in_use) for item in storing.list_uploads(conn)] == [
        (second.id, True),
        (first.id, False),
    ]


def test_upload_of_courses_replaces_earlier_courses_but_not_the_roster(conn: Connection) -> None:
    store(conn, roster_of(1))
    store(conn, csv_file(COURSES), Kind.COURSES)
    stored = store(conn, csv_file(COURSES[1:]), Kind.COURSES)
    assert stored.replaced == 2
    assert table_rows(conn, "training_course", "course, version, due_each_year") == [
        ("LAW", 2, "03-31")
    ]
    assert len(table_rows(conn, "training_roster")) == 1
    assert [(str(item.kind), item.is_in_use) for item in storing.list_uploads(conn)] == [
        ("courses", True),
        ("courses", False),
        ("roster", True),
    ]


def test_completions_of_several_files_are_added_without_duplicates(conn: Connection) -> None:
    kind = Kind.COMPLETIONS
    first = store(conn, completions_of("E1,LAW,1,2026-01-05,yes", "E1,LAW,1,2026/1/5,是"), kind)
    assert (first.lines, first.added, first.corrected) == (2, 1, 0)
    second = store(conn, completions_of("E1,LAW,1,2026-01-05,yes", "E1,LAW,2,2026-01-05,yes"), kind)
    assert (second.lines, second.added, second.replaced) == (2, 1, None)
    columns = "person, course, version, completed_on, passed, upload_id"
    assert table_rows(conn, "training_completion", columns) == [
        ("E1", "LAW", 1, date(2026, 1, 5), True, first.id),
        ("E1", "LAW", 2, date(2026, 1, 5), True, second.id),
    ]
    assert all(item.is_in_use for item in storing.list_uploads(conn))


@pytest.mark.parametrize("passed", [("no", "yes"), ("yes", "no")])
@pytest.mark.parametrize("in_one_file", [True, False])
def test_course_both_passed_and_failed_on_the_same_day_is_stored_as_passed(
    conn: Connection, passed: tuple[str, str], in_one_file: bool
) -> None:
    lines = [f"E1,LAW,1,2026-01-05,{item}" for item in passed]
    stored = [
        store(conn, completions_of(*part), Kind.COMPLETIONS)
        for part in ([lines] if in_one_file else zip(lines))
    ]
    assert table_rows(conn, "training_completion", "person, course, passed") == [
        ("E1", "LAW", True)
    ]
    assert sum(item.corrected for item in stored) == (not in_one_file and passed[0] == "no")


def test_second_upload_of_same_file_changes_nothing(conn: Connection) -> None:
    for kind, content in ((Kind.ROSTER, roster_of(2)), (Kind.COMPLETIONS, csv_file(COMPLETIONS))):
        first = store(conn, content, kind)
        again = store(conn, content, kind, by="li.na")
        assert (again.was_stored_before, again.id, again.lines) == (True, first.id, 2)
    assert len(storing.list_uploads(conn)) == 2


def test_earlier_roster_can_be_uploaded_again(conn: Connection) -> None:
    store(conn, roster_of(2))
    store(conn, roster_of(2, first=3))
    restored = store(conn, roster_of(2))
    assert (restored.was_stored_before, restored.replaced) == (False, 2)
    assert table_rows(conn, "training_roster", "person, name, head")[0][0] == "E0001"


def test_completions_file_that_was_uploaded_before_is_recognised(conn: Connection) -> None:
    store(conn, completions_of("E1,LAW,1,2026-01-05,yes"), Kind.COMPLETIONS)
    store(conn, completions_of("E2,LAW,1,2026-01-05,yes"), Kind.COMPLETIONS)
    assert store(
        conn, completions_of("E1,LAW,1,2026-01-05,yes"), Kind.COMPLETIONS
    ).was_stored_before


@pytest.mark.parametrize(("after", "is_accepted"), [(5, True), (4, False)])
def test_roster_with_less_than_half_of_earlier_rows_is_stored_only_with_option_shrinks(
    state: Engine, after: int, is_accepted: bool
) -> None:
    with state.connect() as conn:
        store(conn, roster_of(10))
        if is_accepted:
            assert store(conn, roster_of(after)).replaced == 10
            return
        with pytest.raises(UsageError, match=f"has {after} lines, but the roster before has 10"):
            store(conn, roster_of(after))
    with state.connect() as conn:
        store(conn, roster_of(10))
        assert store(conn, roster_of(after), shrinks=True).added == after


def test_no_row_of_the_file_is_stored_if_a_line_is_invalid(state: Engine) -> None:
    with state.begin() as conn:
        number = store(conn, roster_of(2000)).id
    with pytest.raises(UploadRefused), state.begin() as conn:
        store(conn, roster_of(1999, first=5000) + b"E9999,x\n")
    with state.begin() as conn:
        assert {row[0] for row in table_rows(conn, "training_roster")} == {number}
        assert [item.id for item in storing.list_uploads(conn)] == [number]
        conn.execute(text("TRUNCATE training_roster, training_course, training_completion"))
        conn.execute(text("DELETE FROM training_upload"))


@pytest.mark.parametrize("by", ["", " "])
def test_upload_without_user_id_raises_usage_error(conn: Connection, by: str) -> None:
    with pytest.raises(UsageError, match="who uploads the file is not named"):
        store(conn, roster_of(1), by=by)


def test_upload_raises_usage_error_if_file_changes_while_it_is_read(conn: Connection) -> None:

    class Growing(io.BytesIO):
        def seek(self, to: int, whence: int = 0, /) -> int:
            super().seek(0, io.SEEK_END)
            self.write(b"\n")
            return super().seek(to, whence)

    growing = upload_of(b"")
    growing.stream = Growing(roster_of(3))
    with pytest.raises(UsageError, match="was changed while it was read"):
        storing.store_upload(conn, growing, by="chen", at=NOW)


def test_upload_during_another_upload_raises_service_error_after_timeout(
    state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "_LOCK_TIMEOUT", storing.SQL("SET LOCAL lock_timeout = '50ms'"))
    with state.connect() as first:
        store(first, roster_of(2))
        with (
            state.connect() as second,
            pytest.raises(ServiceError, match="Another upload of training data has been running"),
        ):
            store(second, roster_of(2, first=3))


def test_upload_with_lost_database_connection_raises_service_error(state: Engine) -> None:
    is_cut = threading.Event()
    with state.connect() as conn:
        number = conn.scalar(text("SELECT pg_backend_pid()"))

        class Cutting(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if not is_cut.is_set():
                    is_cut.set()
                    with state.begin() as other:
                        other.execute(text("SELECT pg_terminate_backend(:n)"), {"n": number})
                return super().read(size)

        upload_read = upload_of(b"")
        upload_read.stream = Cutting(roster_of(3))
        with pytest.raises(ServiceError, match="The connection to the state database was lost"):
            storing.store_upload(conn, upload_read, by="chen", at=NOW)
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
def test_stored_completions_are_the_same_for_any_order_of_files_and_any_split_of_rows(
    state: Engine, files: list[list[str]]
) -> None:
    columns = "person, course, version, completed_on, passed"
    results = []
    for parts in (files, files[::-1], [[line for file in files for line in file]]):
        with state.connect() as conn:
            for part in parts:
                store(conn, completions_of(*part), Kind.COMPLETIONS)
            results.append(sorted(table_rows(conn, "training_completion", columns)))
            conn.rollback()
    assert results[0] == results[1] == results[2]
    assert len(set(map(tuple, (item[:4] for item in results[0])))) == len(results[0])
