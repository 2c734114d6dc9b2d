"""Extensions that a drill on the embedded server may create without a superuser's login.

A drill logs in as a role that is no superuser, because a dump executes functions of its database.
PostgreSQL then refuses each extension that its authors have not marked as trusted, also those of
many ordinary databases, such as ``vector`` and ``pg_stat_statements``. Copies of their control
files with ``trusted = true`` stand in a folder before the usual one (`extension_control_path`,
PostgreSQL 18). Their objects belong to the superuser as before, so that functions for monitoring
stay with their usual roles.
"""

from __future__ import annotations

from pathlib import Path

TRUSTED = (
    "amcheck",
    "autoinc",
    "bloom",
    "insert_username",
    "moddatetime",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_stat_statements",
    "pg_visibility",
    "pgrowlocks",
    "pgstattuple",
    "refint",
    "vector",
)
"""Extensions whose functions neither read files nor reach other servers or change pages by hand."""


def write_control_files(programs: Path, folder: Path) -> str:
    """Write control files that make `TRUSTED` trusted.

    Args:
        programs: folder of the server's programs; extensions are in ``share`` beside it.
        folder: where the files go; the server reads it.

    Returns:
        The value of `extension_control_path`.
    """
    original = programs.parent / "share" / "extension"
    copies = folder / "extension"
    copies.mkdir(parents=True, exist_ok=True)
    for each in (folder, copies):
        each.chmod(0o755)  # whatever the umask is, the server's user reads them
    for name in TRUSTED:
        text = (original / f"{name}.control").read_text(encoding="utf-8")
        quoted = str(original).replace("'", "''")
        text += f"\ntrusted = true\ndirectory = '{quoted}'\n"
        copy = copies / f"{name}.control"
        copy.write_text(text, encoding="utf-8")
        copy.chmod(0o644)
    return f"{folder}:$system"
