"""Processes of tests that are forked from a process with the needed modules imported.

Most tests that kill or restart a process would otherwise wait a second for its imports. `Forked` is
like a `subprocess.Popen` of ``python -m MODULE WORDS``, except that the parent process has already
imported the module. The module's function `main` is called without arguments and reads `sys.argv`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
REQUEST_SIZE = 1 << 20  # bytes
COMMANDS = "include.cli.app"


class ForkServer:
    """Imports modules and forks processes that run them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, server_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server_socket:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forking", str(server_socket.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[server_socket.fileno()],
            )
        atexit.register(self.stop)

    def fork(self, request: dict[str, Any], files: Sequence[int]) -> int:
        """Fork a process, and return its id.

        Args:
            request: module, arguments, environment and working folder of the process.
            files: file descriptors of its standard input, output and error output.
        """
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            return int(self._answer())

    def status(self, pid: int) -> tuple[int, int]:
        """Return the result of `os.waitpid` for a forked process, without waiting for its end."""
        with self._lock:
            self._socket.send(json.dumps({"pid": pid}).encode())
            answer = json.loads(self._answer())
        return answer[0], answer[1]

    def stop(self) -> None:
        """Stop the server. Processes that it forked continue."""
        self._socket.close()
        self._process.wait()

    def _answer(self) -> bytes:
        answer = self._socket.recv(REQUEST_SIZE)
        assert answer, "the fork server has ended"
        return answer


@cache
def fork_server() -> ForkServer:
    """Return the fork server of this process, which starts at its first use."""
    return ForkServer()


class Forked(subprocess.Popen[str]):
    """A process that runs the function `main` of a module.

    Args:
        module: name of the module.
        words: arguments in `sys.argv`.
        options: options of `subprocess.Popen`; pipes are in text mode.
    """

    def __init__(self, module: str, *words: str, **options: Any) -> None:
        self._server = fork_server()
        super().__init__([module, *words], text=True, **options)

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        # The arguments of `subprocess.Popen._execute_child`, the same from Python 3.11 to 3.13.
        cwd, environment = rest[4], rest[5]
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[9:15]
        module, *words = args
        request = {
            "module": module,
            "words": words,
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
        }
        pipes = (p2cread, c2pwrite, errwrite)
        files = [usual if own == -1 else own for usual, own in enumerate(pipes)]
        self.pid = self._server.fork(request, files)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if not wait_flags:
            ended = os.pidfd_open(self.pid)
            select.select([ended], [], [])
            os.close(ended)
        return self._server.status(self.pid)

    def _internal_poll(self, _deadstate: int | None = None, *_usual: Any) -> int | None:
        at_deletion = _deadstate is not None
        if self.returncode is None and not at_deletion and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._server.status(self.pid)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run_forked(module: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the function `main` of a module to its end, and return its exit code and output.

    Args:
        module: name of the module.
        words: arguments in `sys.argv`.
        options: options of `subprocess.Popen`.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Forked(module, *words, **pipes, **options) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess([module, *words], process.returncode, out, err)


def _serve(requests: socket.socket) -> None:
    while True:
        message, files, _flags, _address = socket.recv_fds(requests, REQUEST_SIZE, 3)
        if not message:
            return
        request = json.loads(message)
        if "pid" in request:
            requests.send(json.dumps(os.waitpid(request["pid"], os.WNOHANG)).encode())
            continue
        with suppress(Exception):  # the process fails with the same error and shows it
            module = import_module(request["module"])
            if request["module"] == COMMANDS:
                module.command_line([])  # imports all commands
        gc.collect()
        gc.freeze()  # the collector would copy the pages of all modules in each process
        pid = os.fork()
        if pid == 0:
            requests.close()
            _run(request, files)
        for file in files:
            os.close(file)
        requests.send(str(pid).encode())


def _run(request: Mapping[str, Any], files: Sequence[int]) -> NoReturn:
    """Run the function `main` of a module, and end this process as Python does."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["module"], *request["words"]]
    code = 1
    try:
        import_module(request["module"]).main()
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)  # noqa: T201 - as Python does
        else:
            code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
