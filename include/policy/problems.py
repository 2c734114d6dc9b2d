"""What is wrong with a policy pack: every problem at once, each with file, line and path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from include.services.errors import UsageError


@dataclass(frozen=True)
class PackProblem:
    """One thing in a pack that has to be put right.

    Attributes:
        file: path inside the pack, ``datamap/courier.yaml``; empty for the pack itself.
        line: 1-based line in that file, None when the whole file is meant.
        path: where in the document, ``collections[3].fields[0].name``; may be empty.
        message: what is wrong, in one line.
    """

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class PackError(UsageError):
    """The policy pack cannot be used.

    Attributes:
        folder: the pack's folder.
        problems: all of them, by file and line.
    """

    def __init__(self, folder: Path, problems: Sequence[PackProblem]) -> None:
        self.folder = folder
        self.problems = sorted(problems, key=lambda one: (one.file, one.line or 0, one.path))
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            "\n".join([f"The policy pack in {folder} has {count}:", *map(str, self.problems)])
        )
