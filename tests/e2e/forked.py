"""Run commands in processes that are forked from one in which Airflow is imported.

The import takes as long as most of a run.

``python -m tests.e2e.forked`` does for each line of its input, a JSON object with ``words`` (of
Python: ``-m MODULE ...`` or ``-c TEXT ...``), ``environment``, ``folder``, ``out`` and ``err``,
what Python would do. It writes the process id, and at the end the exit code. A command runs from
its beginning; only the modules that it imports are there already.
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

from include.cli.stack import workplace
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.registry import workflows
from include.workplace import ROOT
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
    """Import the modules of workflows, and leave no thread and no connection behind."""
    os.environ.update(
        local_airflow.settings(LocalProfile(workplace().home), ROOT, AIRFLOW_RUNS, None)
    )
    for name in names:
        import_module(name)
    workflows()
    from airflow import settings
    from airflow.sdk.execution_time.supervisor import in_process_api_server
    from sqlalchemy.orm import configure_mappers

    from include.orchestration.inprocess import serve_newest_api

    configure_mappers()
    serve_newest_api()
    in_process_api_server().app._cadwyn_initialize()  # seconds; done when first asked
    settings.dispose_orm()


def child(do: Callable[[], None]) -> int:
    """Fork a process that does something on Airflow's database; return its id.

    It exits with 0, or with what a `SystemExit` says; with 70 after any other error.
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
        os._exit(code)  # never returns into what its parent does


class Running:
    """A command in a forked process.

    Attributes:
        pid: of the process.
    """

    def __init__(self, answers: IO[str], out: Path, err: Path) -> None:
        self._answers, self._out, self._err = answers, out, err
        self._code: int | None = None
        self.pid = int(answers.readline())

    @property
    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def has_ended(self) -> bool:
        """Whether the process ended."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        if self._code is None:
            self._code = int(self._answers.readline())
        return subprocess.CompletedProcess([], self._code, self._out.read_text(), self.stderr)


class Forked:
    """Runs commands one after the other, in forked processes.

    Args:
        environment: of the process from which they are forked.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment, self._folder = dict(environment), folder
        self._process: subprocess.Popen[str] | None = None
        self.busy = Lock()

    def call(
        self, words: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `busy` has to be held."""
        with self.running(words, environment) as command:
            return command.wait()

    @contextmanager
    def running(self, words: Sequence[str], environment: Mapping[str, str]) -> Iterator[Running]:
        """Start a command, and kill it at the end of the block; `busy` has to be held."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            asked = {
                "words": list(words),
                "environment": dict(environment),
                "folder": str(self._folder),
                "out": str(out),
                "err": str(err),
            }
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            command = Running(process.stdout, out, err)
            try:
                yield command
            finally:
                if not command.has_ended:
                    os.kill(command.pid, signal.SIGKILL)
                command.wait()

    def stop(self) -> None:
        """End the process."""
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


def _command(asked: Mapping[str, Any]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    if DAGS_FOLDER in os.environ:
        from airflow import settings

        settings.DAGS_FOLDER = os.environ[DAGS_FOLDER]  # read when Airflow was imported
    how, what, *words = asked["words"]
    sys.argv = [what if how == "-m" else how, *words]
    if how == "-m" and words[0] != "run":  # a command without Airflow has none of its logging
        logging.root.handlers.clear()
        logging.root.setLevel(logging.WARNING)
    with without_pdf() if os.environ.pop(WITHOUT_PDF, "") else nullcontext():
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})  # noqa: S102 - as `python -c` does


def main() -> None:
    """Serve."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of Airflow is not an answer
    preload((*ALL, *SOME))
    gc.freeze()  # the collector skips imported modules
    gc.set_threshold(50_000, 20, 20)  # as the command line has it
    for line in sys.stdin:
        asked = json.loads(line)
        pid = child(lambda: _command(asked))  # noqa: B023 - called at once
        print(pid, file=answers, flush=True)
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
