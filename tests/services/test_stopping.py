"""Test that a process ends on SIGTERM and SIGINT, even if a library installed its own handler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import psycopg
import pytest

from include.service_container import ROOT

START = """
import signal, subprocess, sys, time
from include.services import stopping
stopping.install(lambda text: print(text, flush=True))
signal.signal(signal.SIGTERM, lambda *_: None)  # as Airflow's task runner does
child = subprocess.Popen(["sleep", "60"])

def ready():
    print(child.pid, flush=True)
"""
END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
STDERR_TO_STDOUT = "import os; os.dup2(1, 2)"
POLITE = """
try:
    ready()
    time.sleep(60)
except stopping.Interruption as ended:
    child.terminate()
    child.wait()
    stopping.exit_now(ended.exit_code)
"""
DEFERRED = """
try:
    with stopping.deferred():
        ready()
        time.sleep(1)
        print("whole", flush=True)
except stopping.Interruption as ended:
    child.terminate()
    child.wait()
    stopping.exit_now(ended.exit_code)
"""
SLOW = """
try:
    ready()
    time.sleep(60)
except stopping.Interruption as ended:
    time.sleep(0.5)
    child.terminate()
    child.wait()
    print("cleaned up", flush=True)
    stopping.exit_now(ended.exit_code)
"""
DEAF = """
while True:
    try:
        ready()
        ready = lambda: None
        time.sleep(60)
    except BaseException:
        print("deaf", flush=True)
"""


PROGRAM = """
from include.cli.testing import run_program
ready()
child.kill()
child.wait()
run_program([sys.executable, "-c", '''
import time
try:
    print("at work", flush=True)
    time.sleep(60)
finally:
    print("cleaned up", flush=True)
'''])
"""


# A signal within psycopg's own code leaves the session busy, so that its ROLLBACK fails.
BUSY = """
import psycopg
with psycopg.connect({database!r}) as connection, connection.transaction():
    connection.pgconn.send_query(b"SELECT pg_sleep(60)")
    child.kill()  # before the signal may come: a child left over keeps the output open
    child.wait()
    ready()
    time.sleep(60)
"""


def start(script: str, before: str = START) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", before + script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("script", "words"), [(POLITE, ""), (DEFERRED, "whole")])
def test_signal_ends_process_and_children_with_exit_code_128_plus_signal_number(
    number: int, script: str, words: str
) -> None:
    process, child = start(script)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert words in printed
    assert not psutil.pid_exists(child)


def test_second_signal_ends_process_and_children_at_once() -> None:
    process, child = start(DEAF)
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    printed = process.stdout.readline() + process.stdout.readline()
    assert "deaf" in printed  # it may be within the other line
    assert "stopping" in printed
    time.sleep(1.1)  # until a signal is a second one
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 5
    assert not psutil.pid_exists(child)


def test_same_signal_twice_within_a_second_leaves_process_time_to_clean_up() -> None:
    process, child = start(SLOW)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "cleaned up" in printed
    assert not psutil.pid_exists(child)


def test_signal_ends_process_if_announce_function_raises() -> None:
    process, child = start(POLITE, START.replace("print(text, flush=True)", "1 / 0"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert not psutil.pid_exists(child)


def test_time_limit_ends_process_and_children_that_ignore_the_signal() -> None:
    process, child = start("stopping.LIMIT = 0.5\n" + DEAF)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert not psutil.pid_exists(child)


def test_child_program_cleans_up_if_its_parent_process_gets_sigterm() -> None:
    process, _child = start(PROGRAM)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert "cleaned up" in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_child_program_cleans_up_if_its_process_group_gets_the_signal(number: int) -> None:
    """The program `timeout` and Ctrl-C in a terminal signal the whole process group."""
    process, _child = start(PROGRAM)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    os.killpg(process.pid, number)
    printed, _ = process.communicate(timeout=120)
    assert printed.count("cleaned up") == 1


def test_processes_started_by_a_child_program_end_with_it_after_sigterm() -> None:
    helper = 'import subprocess; subprocess.Popen(["sleep", "60"])'
    process, _child = start(PROGRAM.replace("import time", f"import time; {helper}"))
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)  # until each process has closed its output
    assert "cleaned up" in printed


def test_child_program_cleans_up_if_its_parent_process_is_killed() -> None:
    process, _child = start(PROGRAM)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.kill()
    printed, _ = process.communicate(timeout=120)
    assert "cleaned up" in printed


def test_interrupted_transaction_does_not_log_the_database_name(database: str) -> None:
    """Psycopg's log messages contain the host, the user and the name of the database."""
    process, _child = start(BUSY.format(database=database), STDERR_TO_STDOUT + START)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    with psycopg.connect(database) as connection:
        connection.execute(END_OTHERS)
        name = connection.info.dbname
    assert "Interruption: interrupted by SIGTERM" in printed
    assert "ignored" not in printed
    assert name not in printed
