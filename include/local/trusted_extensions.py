"""Extensions that a drill on the embedded server may create without a superuser's login.

A drill does not log in as a superuser, because a dump executes functions of its database. To such
a role PostgreSQL refuses each extension that its authors have not marked as trusted, such as
``vector`` and ``pg_stat_statements``, which ordinary databases have. The server therefore reads
copies of their control files with ``trusted = true`` first (`extension_control_path`, PostgreSQL
18). The superuser still owns their functions, so functions for monitoring keep their usual rights.
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
"""Extensions whose functions do not read files, reach other servers or change pages directly."""


def write_control_files(programs: Path, folder: Path) -> str:
    """Write control files that make `TRUSTED` trusted.

    Args:
        programs: folder of the server's programs; extensions are in ``share`` beside it.
        folder: target folder; the server reads it.

    Returns:
        The value of `extension_control_path`.
    """
    original = programs.parent / "share" / "extension"
    copies = folder / "extension"
    copies.mkdir(parents=True, exist_ok=True)
    for each in (folder, copies):
        each.chmod(0o755)  # the server's user reads them, independent of the umask
    for name in TRUSTED:
        text = (original / f"{name}.control").read_text(encoding="utf-8")
        quoted = str(original).replace("'", "''")
        text += f"\ntrusted = true\ndirectory = '{quoted}'\n"
        copy = copies / f"{name}.control"
        copy.write_text(text, encoding="utf-8")
        copy.chmod(0o644)
    return f"{folder}:$system"
