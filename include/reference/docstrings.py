"""Read the docstrings that describe the keys of a policy pack."""

from __future__ import annotations

import inspect
import re
from functools import cache

from include.reference.markdown import plain

_ATTRIBUTE = re.compile(r"    (\w+): (.*)")


@cache
def attributes(documented: type) -> dict[str, str]:
    """Return the descriptions of a class's attributes, by name of the attribute.

    The descriptions are read from the docstrings of the class and its base classes. If both
    describe an attribute, the description in the class itself is used.
    """
    described: dict[str, str] = {}
    for class_ in reversed(documented.__mro__):
        described |= _attributes(class_.__dict__.get("__doc__") or "")
    return described


def summary(documented: object) -> str:
    """Return the first line of an object's docstring."""
    return plain((inspect.getdoc(documented) or "").partition("\n")[0])


def _attributes(docstring: str) -> dict[str, str]:
    _, _, section = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    texts: dict[str, list[str]] = {}
    for line in section.splitlines():
        if begins := _ATTRIBUTE.fullmatch(line):
            texts[begins[1]] = [begins[2]]
        elif line.startswith("        ") and texts:
            texts[next(reversed(texts))].append(line.strip())
        else:
            break
    return {name: plain(" ".join(lines)) for name, lines in texts.items()}
