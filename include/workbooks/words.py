"""Texts of cells: written so that they come back, and compared by what people mean."""

from __future__ import annotations

import re
import unicodedata

from include.messages import Message
from include.reports.i18n import Translator, visible

# `\u0041` is how a character is written that cannot stand in a cell, `_x0041_` is how the file
# format itself does it (ECMA-376-1:2016, 22.9.2.19): programs turn both into something else.
_ESCAPES = re.compile(r"\\(?=u[0-9a-fA-F]{4})|[xX](?=[0-9a-fA-F]{4}_)")


def same(text: str) -> str:
    """Reduce a text to what people mean by it: no blanks, full width or case."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        one for one in plain if not one.isspace() and unicodedata.category(one) not in ("Cf", "Cc")
    )


def plain(text: str) -> str:
    r"""Write a text so that every program shows, and gives back, the same characters.

    Controls, carriage returns, surrogates and direction marks become ``\u0001``; two different
    texts never become the same. Line feeds and tabs stay.
    """
    return visible(_ESCAPES.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def each(message: Message) -> tuple[str, ...]:
    """Return a message in Chinese and English; once when both are the same."""
    return tuple(dict.fromkeys(Translator(one).text(message) for one in ("zh_CN", "en")))


def both(message: Message) -> str:
    """Return a message in Chinese and English, a line each."""
    return "\n".join(each(message))


def beside(message: Message) -> str:
    """Return a message in Chinese and English, in one line."""
    return " / ".join(each(message))
