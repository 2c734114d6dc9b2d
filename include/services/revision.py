"""Determine the version of the installed code from git or from a version file."""

from __future__ import annotations

import subprocess
from pathlib import Path

REVISION_FILE = "REVISION"  # written into images, which have no git


def code_version(root: Path) -> str:
    """Return the version of the code in a folder.

    This is the content of its version file, or else its git commit. The suffix ``+changes`` after a
    commit means that files differ from the commit. The result is ``unknown`` if the folder has
    neither a version file nor a git repository.
    """
    written = root / REVISION_FILE
    if written.exists():
        return written.read_text().strip()
    commit = _git(root, "rev-parse", "HEAD")
    return f"{commit}+changes" if _git(root, "status", "--porcelain", "-uno") else commit


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], check=False, capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"
