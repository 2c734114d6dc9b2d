"""End a command within `LIMIT` seconds after SIGTERM or SIGINT.

The first signal raises `Interruption` in the main thread. The ``finally`` blocks of the command
then cancel statements, end programs and release locks. If a second signal arrives, or if the
command has not ended after `LIMIT` seconds, the process and its children are ended at once. Signals
within `REPEAT` seconds of the first signal are ignored, because the program `timeout` sends its
signal twice: to the command and to its process group.

Python passes a signal only to the handler that was installed last, and only while the main thread
runs. In each task, Airflow installs its own handler of SIGTERM, which does nothing. Therefore, a
separate thread reads the signals from `signal.set_wakeup_fd`, which works with every installed
handler.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

import psutil

LIMIT = 12.0  # seconds from the first signal to the forced end; the documented limit is 15
REPEAT = 1.0  # seconds after the first signal in which further signals are ignored
POLITE = 1.0  # seconds that children get between SIGINT and SIGKILL when the process ends at once
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WAKE = signal.SIGRTMIN  # interrupts the main thread; the kernel may have chosen another thread


class Interruption(KeyboardInterrupt):
    """The error that ends the command after SIGTERM or SIGINT.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """Return the usual exit code after a signal: 128 plus the number of the signal."""
        return 128 + self.number


@dataclass
class _State:
    number: int = 0  # number of the first signal; 0 before any signal
    is_raised: bool = False
    deferrals: int = 0
    exit_functions: list[Callable[[], None]] = field(default_factory=list)


_state = _State()


def install(announce: Callable[[str], None]) -> None:
    """Start to handle SIGTERM and SIGINT: either signal ends the command within `LIMIT` seconds.

    Call this function in the main thread. If a shell script starts a process in the background, the
    process ignores SIGINT at first. After this call, it no longer ignores SIGINT.

    Args:
        announce: function that prints a line on the terminal.
    """
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    signal.signal(_WAKE, _raise_in_main)
    for number in _SIGNALS:
        signal.signal(number, _do_nothing)  # the thread below reads the signal
    thread = threading.Thread(
        target=_watch, args=(receiving, sending, announce), name="signals", daemon=True
    )
    thread.start()


def interruption() -> Interruption | None:
    """Return the error for the signal that this process received; None if it received no signal."""
    return Interruption(_state.number) if _state.number else None


def check() -> None:
    """Raise `Interruption` if this process has received SIGTERM or SIGINT.

    Raises:
        Interruption: a signal was received.
    """
    if interrupted := interruption():
        raise interrupted


@contextmanager
def deferred() -> Iterator[None]:
    """Delay `Interruption` until the end of the block.

    Raises:
        Interruption: a signal was received during the block.
    """
    _state.deferrals += 1
    try:
        yield
    finally:
        _state.deferrals -= 1
    if _state.number and not _state.is_raised and not _state.deferrals:
        _raise_in_main(0, None)


def before_forced_exit(act: Callable[[], None]) -> None:
    """Register a function that `exit_now` calls before it ends the process.

    Args:
        act: function without arguments that cleans up, such as by deleting files or ending servers.
            It must end within about one second.
    """
    _state.exit_functions.append(act)


@contextmanager
def before_forced_exit_in_block(act: Callable[[], None]) -> Iterator[None]:
    """Let `exit_now` call a function if it ends the process during the block.

    Args:
        act: function without arguments that cleans up, such as by deleting files or ending servers.
            It must end within about one second.
    """
    before_forced_exit(act)
    try:
        yield
    finally:
        _state.exit_functions.remove(act)


def exit_now(code: int) -> NoReturn:
    """Call the functions that `before_forced_exit` registered, and then end this process at once.

    Python's own clean-up at exit is skipped, because it can take seconds.

    Args:
        code: exit code.
    """
    for act in list(_state.exit_functions):
        with suppress(Exception):
            act()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Keep Python from ending the process on a signal.

    A separate thread handles the signal.
    """


def _raise_in_main(_number: int, _frame: FrameType | None) -> None:
    if _state.number and not _state.is_raised and not _state.deferrals:
        _state.is_raised = True
        raise Interruption(_state.number)


def _watch(
    receiving: socket.socket, sending: socket.socket, announce: Callable[[str], None]
) -> None:
    del sending  # the thread's argument keeps the socket open
    begun = None
    while True:
        patience = None if begun is None else max(0.0, begun + LIMIT - time.monotonic())
        if not select.select([receiving], [], [], patience)[0]:
            break
        arrived = [number for number in receiving.recv(64) if number in _SIGNALS]
        if not arrived:
            continue
        if begun is None:
            begun = time.monotonic()
            # psycopg would log each session whose ROLLBACK fails because of the signal.
            logging.getLogger("psycopg").setLevel(logging.CRITICAL)
            _state.number = arrived[0]
            signal.pthread_kill(_main_thread(), _WAKE)
            name = signal.Signals(arrived[0]).name
            with suppress(Exception):  # the signal may have ended the reader of the output
                announce(
                    f"{name}: stopping within {LIMIT:.0f} s; "
                    "a second signal ends the command at once"
                )
        elif time.monotonic() - begun >= REPEAT:
            break
    _end_at_once()


def _main_thread() -> int:
    ident = threading.main_thread().ident
    assert ident is not None
    return ident


def _end_at_once() -> None:
    children = []
    with suppress(psutil.Error):
        children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.Error):
            child.send_signal(signal.SIGINT)  # programs of PostgreSQL cancel their statements
    _ended, alive = psutil.wait_procs(children, timeout=POLITE)
    for child in alive:
        with suppress(psutil.Error):
            child.kill()
    exit_now(128 + _state.number)
