"""Harm to what is stored. A bit is turned over: a byte put in its place may be the same one."""

from __future__ import annotations

from pathlib import Path


def flipped(content: bytes, at: int = -1) -> bytes:
    """The content with one bit of one byte turned over."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def flip(path: Path, at: int = -1) -> None:
    """Change one byte of a file, were it read-only."""
    content = flipped(path.read_bytes(), at)
    path.chmod(0o644)
    path.write_bytes(content)
