"""pg_dump, the same for an original and its restored copy."""

from __future__ import annotations

from collections.abc import Sequence

from include.services.client_program import ClientProgram
from include.services.database import DatabaseAddress


class PgDump(ClientProgram):
    """A running pg_dump; original and copy are dumped alike, or checksums say nothing.

    Args:
        address: the database.
        encoding: of the dump.
        more: further options.
    """

    def __init__(self, address: DatabaseAddress, encoding: str, more: Sequence[str] = ()) -> None:
        words = [
            "--format=custom",
            "--compress=0",  # as "none", which version 15 does not know
            f"--encoding={encoding}",
        ]
        super().__init__("pg_dump", [*words, *more], address)
