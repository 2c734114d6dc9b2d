"""Writing YAML with comments beside its lines: PyYAML writes none, and a draft has reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import yaml

_PLAIN = re.compile(r"[^\W\d][\w.-]*")
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u200a\u2010-\u2027\u202f-\u2065\u2070-\ud7ff\ue000-\ufefe\uff00-\ufffd"
    "\U00010000-\U0010ffff]"
)


def scalar(text: str) -> str:
    """A text as a YAML scalar that reads back as the same text, quoted where it has to be."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def flow_list(texts: Iterable[str]) -> str:
    """Texts as a list on one line."""
    return f"[{', '.join(map(scalar, texts))}]"


def flow_map(pairs: Iterable[tuple[str, str]]) -> str:
    """Keys with values that are YAML already, on one line."""
    return "{" + ", ".join(f"{scalar(key)}: {value}" for key, value in pairs) + "}"


def comment(text: str) -> str:
    """A text as the end of a line; a name with a line break in it does not break out."""
    return "# " + " ".join(_UNPRINTABLE.sub(" ", text).split())


class Lines:
    """A YAML document that grows line by line."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, depth: int, text: str, why: str = "") -> None:
        """Add a line.

        Args:
            depth: levels of indentation, two spaces each.
            text: YAML.
            why: comment at its end.
        """
        self._lines.append("  " * depth + text + (f"  {comment(why)}" if why else ""))

    def note(self, depth: int, *texts: str) -> None:
        """Add whole lines of comment."""
        for text in texts:
            self._lines.append("  " * depth + comment(text))

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"
