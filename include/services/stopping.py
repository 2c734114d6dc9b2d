"""End a command on SIGTERM or SIGINT within `LIMIT` seconds.

The first signal raises `Interruption` in the main thread, so that `finally` blocks cancel
statements, end programs and release locks. A second signal, or the end of the time, ends the
process and its children at once. Signals within `REPEAT` seconds of the first one count as the
first: `timeout` sends its signal to the command and then to the command's group.

Python delivers a signal only to the handler that was installed last, and only when the main thread
runs. Airflow's task runner installs its own handler of SIGTERM in each task, which does nothing.
Therefore a thread reads the signals from `signal.set_wakeup_fd`, which no handler replaces.
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
REPEAT = 1.0  # seconds after the first signal in which further ones count as the same
POLITE = 1.0  # seconds that children get between SIGINT and SIGKILL when the process ends at once
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WAKE = signal.SIGRTMIN  # interrupts the main thread; the kernel may have chosen another thread


class Interruption(KeyboardInterrupt):
    """SIGTERM or SIGINT ends the command.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code that shells use for a process ended by a signal: 128 plus its number."""
        return 128 + self.number


@dataclass
class _State:
    number: int = 0  # of the first signal; 0 while none arrived
    is_raised: bool = False
    deferrals: int = 0
    last_acts: list[Callable[[], None]] = field(default_factory=list)


_state = _State()


def install(announce: Callable[[str], None]) -> None:
    """End this process on SIGTERM and SIGINT from now on; call it in the main thread.

    A shell starts a command in the background of a script with SIGINT ignored. Such a command ends
    on SIGINT too.

    Args:
        announce: prints a line on the terminal.
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
    """Return the interruption of this process, or None while no signal arrived."""
    return Interruption(_state.number) if _state.number else None


def check() -> None:
    """Raise the interruption of this process if a signal arrived.

    Raises:
        Interruption: a signal arrived.
    """
    if interrupted := interruption():
        raise interrupted


@contextmanager
def deferred() -> Iterator[None]:
    """Delay an interruption to the end of the block, which must not end half-way.

    Raises:
        Interruption: a signal arrived while the block ran.
    """
    _state.deferrals += 1
    try:
        yield
    finally:
        _state.deferrals -= 1
    if _state.number and not _state.is_raised and not _state.deferrals:
        _raise_in_main(0, None)


def at_sudden_exit(act: Callable[[], None]) -> None:
    """Run a function when this process exits without Python's clean-up.

    Args:
        act: the function, which ends servers or removes files; it has about a second.
    """
    _state.last_acts.append(act)


@contextmanager
def last_act(act: Callable[[], None]) -> Iterator[None]:
    """Run a function if this process exits without Python's clean-up during the block."""
    at_sudden_exit(act)
    try:
        yield
    finally:
        _state.last_acts.remove(act)


def exit_now(code: int) -> NoReturn:
    """End this process without Python's clean-up, which takes seconds after a run.

    Args:
        code: the exit code.
    """
    for act in list(_state.last_acts):
        with suppress(Exception):
            act()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Keep Python from ending the process by itself."""


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
            # Its ROLLBACK fails in a session that the signal broke off, and it logs the session.
            logging.getLogger("psycopg").setLevel(logging.CRITICAL)
            _state.number = arrived[0]
            signal.pthread_kill(_main_thread(), _WAKE)
            name = signal.Signals(arrived[0]).name
            with suppress(Exception):  # a pipe to which it prints may have ended by the same signal
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
