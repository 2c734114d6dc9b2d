"""The command of pg_dump, the same for an original and its restored copy."""

from __future__ import annotations

from include.services.database import DatabaseAddress
from include.services.programs import ending_with_us, program


def pg_dump_command(address: DatabaseAddress, *more: str) -> list[str]:
    """Return pg_dump's command; original and copy are dumped alike, or checksums say nothing."""
    return ending_with_us(
        [
            program("pg_dump"),
            "--format=custom",
            "--compress=0",  # as "none", which version 15 does not know
            "--no-password",
            f"--dbname={address.public_conninfo()}",
            *more,
        ]
    )
