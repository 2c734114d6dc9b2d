"""Write an extract in a separate process, and print the files that the process opened for writing.

``python -m tests.disclosure.extracts.writer_program`` reads its task as JSON from standard input.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from include.disclosure.extracts import reading
from include.disclosure.extracts.extract import ExtractForm, write_extract
from tests.disclosure.extracts.extract_fixtures import MARKS, secret_of, snapshot, source


def main() -> None:
    """Write the extract that the task describes."""
    task: dict[str, Any] = json.loads(sys.stdin.read())
    if task["ending"] == "measure":
        measure(task)
        return
    from tests.disclosure.extracts.test_protection import LONG

    reading.INTERVAL = 0  # report progress after each piece
    opened: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(str(arguments[0]))

    beats = 0

    def progress() -> None:
        nonlocal beats
        beats += 1
        if task["ending"] == "kill" and beats == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if task["ending"] == "error" and beats == 3:
            raise InterruptedError

    form = ExtractForm(task["form"])
    code = 0
    with snapshot(task["conninfo"]) as connection:
        sys.addaudithook(audit)
        try:
            with Path(task["file"]).open("wb") as out:
                write_extract(
                    connection,
                    LONG,
                    MARKS,
                    form,
                    secret_of(form),
                    out,
                    max_rows=60000,
                    progress=progress,
                )
        except InterruptedError:
            code = 1
    print(json.dumps(opened))  # noqa: T201 - the result
    sys.exit(code)


def measure(task: dict[str, Any]) -> None:
    """Print by how many bytes the memory of the process grows with the number of rows."""
    form, peaks = ExtractForm(task["form"]), []
    query = (
        "SELECT n AS number, md5(n::text) || '北京市朝阳区' AS address, now() AS at"
        " FROM generate_series(1, %(rows)s) AS n"
    )
    with snapshot(task["conninfo"]) as connection, Path(os.devnull).open("wb") as out:
        for rows in task["rows"]:
            write_extract(
                connection,
                source(query, "number address at", {"rows": rows}),
                MARKS,
                form,
                secret_of(form),
                out,
                max_rows=rows,
            )
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(peaks[-1] - peaks[0])  # noqa: T201 - the result


if __name__ == "__main__":
    main()
