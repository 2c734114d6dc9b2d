"""Run commands in processes that are forked from a process that has imported Airflow.

The import of Airflow takes as long as most of the rest of a run.

``python -m tests.e2e.forked`` reads a JSON object per input line: ``words`` (arguments of Python:
``-m MODULE ...`` or ``-c TEXT ...``), ``environment``, ``folder``, ``out`` and ``err``. It runs
each command in a forked process, and prints the process id and then the exit code. The command runs
from its beginning, except that the modules are imported already.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import IO, Any

import psutil

from include.cli.stack import command_services
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.registry import workflows
from include.service_container import ROOT
from tests.support.without_pdf import without_pdf

ALL = (
    "airflow.api_fastapi.app",
    "airflow.api_fastapi.core_api.routes.public.hitl",
    "airflow.dag_processing.dagbag",
    "airflow.jobs.scheduler_job_runner",
    "include.encryption.keyrings",
    "docx",
    "holidays",
    "openpyxl",
)
SOME = ("great_expectations", "weasyprint")
"""What all workflows import, and what some do."""
WITHOUT_PDF = "TEST_WITHOUT_PDF"
"""Environment variable with which a command makes no PDF files, unless it is empty."""


DAGS_FOLDER = "AIRFLOW__CORE__DAGS_FOLDER"
"""The one setting of Airflow that a command may have of its own."""


def preload(names: Sequence[str]) -> None:
    """Import the modules of workflows, and close all threads and connections that this opens."""
    os.environ.update(
        local_airflow.settings(LocalProfile(command_services().home), ROOT, AIRFLOW_RUNS, None)
    )
    for name in names:
        import_module(name)
    workflows()
    from airflow import settings
    from airflow.sdk.execution_time.supervisor import in_process_api_server
    from sqlalchemy.orm import configure_mappers

    from include.orchestration.in_process_run import serve_newest_api

    configure_mappers()
    serve_newest_api()
    # Takes seconds; otherwise done at the first request.
    in_process_api_server().app._cadwyn_initialize()
    settings.dispose_orm()


def child(do: Callable[[], None]) -> int:
    """Fork a process that opens Airflow's database and calls a function; return the process id.

    The process exits with 0, with the code of a `SystemExit`, or with 70 after any other error.
    """
    if pid := os.fork():
        return pid
    code = 70
    try:
        from airflow import settings

        settings.configure_orm()
        do()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the child must never continue with the code of its parent


class Running:
    """A command in a forked process.

    Attributes:
        pid: id of the process.
    """

    def __init__(self, answers: IO[str], out: Path, err: Path) -> None:
        self._answers, self._out, self._err = answers, out, err
        self._code: int | None = None
        self.pid = int(answers.readline())

    @property
    def stderr(self) -> str:
        """The command's standard error output so far."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait until the command ends, and return its exit code and output."""
        if self._code is None:
            self._code = int(self._answers.readline())
        return subprocess.CompletedProcess([], self._code, self._out.read_text(), self.stderr)


class Forked:
    """Runs commands one after the other in forked processes.

    Args:
        environment: environment variables of the process from which the commands are forked.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment, self._folder = dict(environment), folder
        self._process: subprocess.Popen[str] | None = None
        self.busy = Lock()

    def call(
        self, words: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. The caller must hold the lock `busy`."""
        with self.running(words, environment) as command:
            return command.wait()

    @contextmanager
    def running(self, words: Sequence[str], environment: Mapping[str, str]) -> Iterator[Running]:
        """Start a command, and kill it after the block. The caller must hold the lock `busy`."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {
                "words": list(words),
                "environment": dict(environment),
                "folder": str(self._folder),
                "out": str(out),
                "err": str(err),
            }
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            command = Running(process.stdout, out, err)
            try:
                yield command
            finally:
                if not command.has_ended:
                    os.kill(command.pid, signal.SIGKILL)
                command.wait()

    def stop(self) -> None:
        """Stop the process from which commands are forked."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait(30)
            self._process.stdout.close()

    def _start(self) -> subprocess.Popen[str]:
        with (self._folder / "logs" / "forked.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.forked"],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )


def _command(request: Mapping[str, Any]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if DAGS_FOLDER in os.environ:
        from airflow import settings

        settings.DAGS_FOLDER = os.environ[DAGS_FOLDER]  # read when Airflow was imported
    mode, program, *words = request["words"]
    sys.argv = [program if mode == "-m" else mode, *words]
    if mode == "-m" and words[0] != "run":  # a command without Airflow has no logging of Airflow
        logging.root.handlers.clear()
        logging.root.setLevel(logging.WARNING)
    with without_pdf() if os.environ.pop(WITHOUT_PDF, "") else nullcontext():
        if mode == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})  # noqa: S102 - as `python -c` does


def main() -> None:
    """Fork a process for each request on standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of Airflow must not be read as an answer
    preload((*ALL, *SOME))
    gc.freeze()  # the collector skips imported modules
    gc.set_threshold(50_000, 20, 20)  # as the command line does
    for line in sys.stdin:
        request = json.loads(line)
        pid = child(lambda: _command(request))  # noqa: B023 - called at once
        print(pid, file=answers, flush=True)
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
