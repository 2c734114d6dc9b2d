"""Stages in threads: the order of pieces, errors from either side, and no thread left behind."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.encryption.stream import DEPTH, PIECE, Filled, Stage
from include.services.programs import Pipe


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def count(up_to: int) -> Iterator[bytes]:
    for number in range(up_to):
        yield b"%d," % number


def test_pieces_arrive_in_order_through_two_stages():
    """What goes in comes out, and nothing runs on."""
    with (
        Stage(lambda: count(200), "first") as first,
        Stage(lambda: (piece.upper() for piece in first), "second") as second,
    ):
        assert b"".join(second) == b"".join(count(200))
    assert not {"first", "second"} & names()


def test_an_error_of_the_producer_is_raised_where_its_pieces_are_read():
    """After the pieces that came before it."""

    def broken() -> Iterator[bytes]:
        yield b"1"
        raise OSError("the disk is gone")

    seen = []
    with (
        pytest.raises(OSError, match="the disk is gone"),
        Stage(broken, "first") as first,
        Stage(lambda: (piece for piece in first), "second") as second,
    ):
        seen += list(second)
    assert seen == [] or seen == [b"1"]
    assert not {"first", "second"} & names()


def test_leaving_early_ends_an_endless_producer():
    """A reader that needs no more, or fails, holds up nobody."""

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    with Stage(endless, "first") as first, Stage(lambda: iter(first), "second") as second:
        assert next(iter(second)) == b"x"
    assert not {"first", "second"} & names()
    with pytest.raises(ZeroDivisionError), Stage(endless, "first") as first:
        [1 / (len(piece) - 1) for piece in first]
    assert "first" not in names()


def test_a_producer_runs_only_a_few_pieces_ahead():
    """Memory stays flat: the queue is short and the producer waits."""
    made = []

    def watched() -> Iterator[bytes]:
        for piece in count(1000):
            made.append(piece)
            yield piece

    with Stage(watched, "first") as stage:
        reader = iter(stage)
        for taken in range(1, 50):
            next(reader)
            assert len(made) <= taken + DEPTH + 2


@given(
    pieces=st.lists(st.binary(max_size=20), max_size=30),
    sizes=st.lists(st.integers(0, 25), max_size=80),
)
def test_filled_reads_like_a_file(pieces: list[bytes], sizes: list[int]):
    """Each read is full until the end, whatever the pieces are; the total is what was read."""
    filled, file = Filled(iter(pieces)), io.BytesIO(b"".join(pieces))
    for size in sizes:
        assert filled.read(size) == file.read(size)
        assert filled.total == file.tell()
    assert filled.read() == file.read()
    assert filled.read(5) == b""


def test_a_pipe_is_read_to_its_end_in_large_pieces():
    """However small the writes are; nothing is lost, and an empty pipe has no piece."""
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
    assert [len(one) for one in pieces] == [PIECE] * 3 + [17]
    assert list(pipe.pieces()) == []
    os.close(reading)
