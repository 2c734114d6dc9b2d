"""Damage stored files by flipping a bit, because a random byte could equal the original."""

from __future__ import annotations

from pathlib import Path


def flipped(content: bytes, at: int = -1) -> bytes:
    """Return the content with one bit of one byte flipped."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def flip(path: Path, at: int = -1) -> None:
    """Flip a bit of a file, even if it is read-only."""
    content = flipped(path.read_bytes(), at)
    path.chmod(0o644)
    path.write_bytes(content)
