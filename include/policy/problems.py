"""Problems of a policy pack, each with its file, line and path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from include.services.errors import UsageError


@dataclass(frozen=True)
class PackProblem:
    """A problem of a policy pack that the author of the pack has to correct.

    Attributes:
        file: path inside the pack, such as ``datamap/courier.yaml``; empty if the problem concerns
            the whole pack.
        line: line in the file, counted from 1; None if the problem concerns the whole file.
        path: path of the faulty value in the file, such as ``collections[3].fields[0].name``; empty
            if the problem concerns the whole file.
        message: description of the problem, in a single line.
    """

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        file_and_line = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (file_and_line, self.path, self.message) if part)


class PackError(UsageError):
    """The error for a policy pack that cannot be used because of problems.

    Attributes:
        folder: folder of the pack.
        problems: all problems, sorted by file and line.
    """

    def __init__(self, folder: Path, problems: Sequence[PackProblem]) -> None:
        self.folder = folder
        self.problems = sorted(
            problems, key=lambda problem: (problem.file, problem.line or 0, problem.path)
        )
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            "\n".join([f"The policy pack in {folder} has {count}:", *map(str, self.problems)])
        )
