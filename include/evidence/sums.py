"""The file SHA256SUMS of a bundle, in the format of coreutils' ``sha256sum -c``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from include.evidence.names import is_file_name, link_to, linked_bundle

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True)
class Link:
    """The bundle before another one in the chain, and the digest of its SHA256SUMS."""

    bundle: str
    sums_sha256: str


@dataclass(frozen=True)
class Sums:
    """The content of SHA256SUMS: digests of files, and the link (None in the first bundle)."""

    files: Mapping[str, str]
    previous: Link | None

    def to_bytes(self) -> bytes:
        """Write it down: files by name, then the link by relative path."""
        lines = [f"{digest}  {name}" for name, digest in sorted(self.files.items())]
        if self.previous:
            lines.append(f"{self.previous.sums_sha256}  {link_to(self.previous.bundle)}")
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Sums:
        """Read it.

        Raises:
            ValueError: a line is not one that a seal writes; names the line.
        """
        files: dict[str, str] = {}
        previous: Link | None = None
        for number, line in enumerate(data.decode().splitlines(), start=1):
            match = _LINE.fullmatch(line)
            linked = linked_bundle(match[2]) if match else None
            if match and linked and previous is None:
                previous = Link(linked, match[1])
            elif match and is_file_name(match[2]) and match[2] not in files:
                files[match[2]] = match[1]
            else:
                raise ValueError(f"line {number} of SHA256SUMS is not one that a seal writes")
        return cls(files, previous)
