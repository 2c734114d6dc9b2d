"""Tests that the records of a CSV stream are counted correctly.

The values of the records, and the pieces in which the stream arrives, are arbitrary.
"""

from __future__ import annotations

import csv
import io
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from include.incident.evidence.log_copy import LogCopy, RowCounter, log_snapshot
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from tests.incident.evidence.extract_fixtures import FILL, WHOLE, run

VALUES = st.text(st.sampled_from('a,"\n\r\\.') | st.characters(codec="utf-8"), max_size=8)


@given(
    rows=st.lists(st.lists(VALUES, min_size=2, max_size=2), max_size=12),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
@example(rows=[['"', "\n"], ['\n"\n', '""']], cuts=[1, 2, 3, 4, 5])
def test_row_counter_returns_number_of_csv_records_if_values_contain_line_breaks(
    rows: list[list[str]], cuts: list[int]
):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    content = text.getvalue().encode()
    counter = RowCounter()
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for start, end in itertools.pairwise(edges):
        counter.feed(content[start:end])
    assert counter.records == len(rows)


def test_row_counter_ignores_incomplete_record():
    for content, records in ((b"a,b\n1,2\n3", 2), (b'a\n"x\ny', 1), (b"", 0)):
        counter = RowCounter()
        counter.feed(content)
        assert counter.records == records


def test_log_copy_fails_if_fewer_rows_arrive_than_postgresql_sent(database: str):
    source = DatabaseAddress.from_conninfo(database)
    run(source, FILL)
    with log_snapshot(source, WHOLE) as snapshot:
        with LogCopy(snapshot) as copying:
            assert b"".join(copying.pieces()).count(b"2026-11-24") == 12
            assert copying.finish() == 12
        with LogCopy(snapshot) as copying:
            for piece in copying._output.pieces():
                copying._counter.feed(piece[: len(piece) // 2])
            with pytest.raises(ServiceError, match="sent 12 rows, 5 of them arrived"):
                copying.finish()
