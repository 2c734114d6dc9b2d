"""Whether two entries name the same person: what separation of duties compares."""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cf", "Cc")  # characters that nobody sees


def as_compared(name: str) -> str:
    """A person's name or number as it is compared: however it was typed."""
    seen = "".join(one for one in name if unicodedata.category(one) not in _UNSEEN)
    return " ".join(unicodedata.normalize("NFKC", seen).casefold().split())
