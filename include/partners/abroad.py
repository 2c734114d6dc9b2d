"""Sub-processors that are not in China, by what the partner wrote of them."""

from __future__ import annotations

from collections.abc import Iterable

from include.partners.questionnaire.reading import SubProcessor
from include.workbooks.words import same

_MOST = 5  # countries that are named
_CHINA = frozenset(
    map(
        same,
        (
            "China",
            "Mainland China",
            "People's Republic of China",
            "PRC",
            "P.R.C.",
            "P.R. China",
            "CN",
            "CHN",
            "中国",
            "中国大陆",
            "中国内地",
            "中华人民共和国",
        ),
    )
)


def abroad(named: Iterable[SubProcessor]) -> list[SubProcessor]:
    """Return those whose country or region is not China; what is not recognised is not China.

    Hong Kong, Macao and Taiwan are told too: to give information there is to provide it outside of
    the territory in the sense of the Personal Information Protection Law (2021-11-01) 38.
    """
    return [one for one in named if same(one.country).replace("’", "'") not in _CHINA]


def countries(named: Iterable[SubProcessor]) -> str:
    """Return the first of their countries or regions, each once, as they were written."""
    found: dict[str, str] = {}
    for one in named:
        found.setdefault(same(one.country), one.country)
    names = list(found.values())
    return ", ".join(names[:_MOST]) + (", …" if len(names) > _MOST else "")
