"""The version of this code, from git or from the file of an image that has no git."""

from __future__ import annotations

import subprocess
from pathlib import Path

REVISION_FILE = "REVISION"  # written into images, which have no git


def code_version(root: Path) -> str:
    """Return the git commit of the code below a folder, with ``+changes`` when files differ.

    ``unknown`` where there is neither git nor the file.
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
