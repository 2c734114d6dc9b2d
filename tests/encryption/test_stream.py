"""Test streams in threads: order of the pieces, errors, and the end of all threads."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.encryption.stream import DEPTH, PIECE, FullReader, Stage
from include.services.programs import Pipe


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def count(up_to: int) -> Iterator[bytes]:
    for number in range(up_to):
        yield b"%d," % number


def test_two_connected_stream_stages_return_all_pieces_in_order():
    """At the end, no thread of the stages is running."""
    with (
        Stage(lambda: count(200), "first") as first,
        Stage(lambda: (piece.upper() for piece in first), "second") as second,
    ):
        assert b"".join(second) == b"".join(count(200))
    assert not {"first", "second"} & names()


def test_error_of_the_producer_is_raised_in_the_reader():
    """The reader may first receive the pieces that were produced before the error."""

    def broken() -> Iterator[bytes]:
        yield b"1"
        raise OSError("the disk is gone")

    pieces = []
    with (
        pytest.raises(OSError, match="the disk is gone"),
        Stage(broken, "first") as first,
        Stage(lambda: (piece for piece in first), "second") as second,
    ):
        pieces += list(second)
    assert pieces == [] or pieces == [b"1"]
    assert not {"first", "second"} & names()


def test_producer_thread_ends_if_its_reader_stops_early_or_fails():
    """If a reader stops early or fails, no producer may wait forever."""

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    with Stage(endless, "first") as first, Stage(lambda: iter(first), "second") as second:
        assert next(iter(second)) == b"x"
    assert not {"first", "second"} & names()
    with pytest.raises(ZeroDivisionError), Stage(endless, "first") as first:
        [1 / (len(piece) - 1) for piece in first]
    assert "first" not in names()


def test_producer_of_stream_stage_is_at_most_a_few_pieces_ahead_of_its_reader():
    """The producer waits while its short queue is full, so little memory is needed."""
    produced = []

    def watched() -> Iterator[bytes]:
        for piece in count(1000):
            produced.append(piece)
            yield piece

    with Stage(watched, "first") as stage:
        reader = iter(stage)
        for taken in range(1, 50):
            next(reader)
            assert len(produced) <= taken + DEPTH + 2


@given(
    pieces=st.lists(st.binary(max_size=20), max_size=30),
    sizes=st.lists(st.integers(0, 25), max_size=80),
)
def test_full_reader_returns_as_many_bytes_as_requested_until_the_end_of_the_stream(
    pieces: list[bytes], sizes: list[int]
):
    """This applies to pieces of any size. `total` is the number of bytes read."""
    reader, file = FullReader(iter(pieces)), io.BytesIO(b"".join(pieces))
    for size in sizes:
        assert reader.read(size) == file.read(size)
        assert reader.total == file.tell()
    assert reader.read() == file.read()
    assert reader.read(5) == b""


def test_pipe_combines_many_small_writes_into_large_pieces():
    """The sizes of the writes do not matter. An empty pipe yields no piece."""
    content = os.urandom(3 * PIECE + 17)
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as end:
            for start in range(0, len(content), 4096):
                end.write(content[start : start + 4096])

    thread = threading.Thread(target=write)
    thread.start()
    pipe = Pipe(reading)
    pieces = list(pipe.pieces())
    thread.join()
    assert b"".join(pieces) == content
    assert pipe.total == len(content)
    assert [len(piece) for piece in pieces] == [PIECE] * 3 + [17]
    assert list(pipe.pieces()) == []
    os.close(reading)
