"""In which language a page is: as the reader chose here, else as their browser says."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request

from include.reports.i18n import LOCALES, language_tag

COOKIE = "parcelseal_language"
PARAMETER = "lang"
_YEAR = 365 * 86400  # seconds
KEPT_FOR = _YEAR
_TAGS = {language_tag(one): one for one in LOCALES}
_MOST_RANGES = 20  # of a header; browsers send a handful


def locale_of(request: Request) -> str:
    """Return the locale for a request: ``en`` or ``zh_CN``."""
    for wish in (request.query_params.get(PARAMETER), request.cookies.get(COOKIE)):
        if wish in _TAGS:
            return _TAGS[wish]
    return negotiated(request.headers.get("accept-language", ""))


def chosen(request: Request) -> str | None:
    """Return the tag of the language that the reader just switched to, None where they did not."""
    wish = request.query_params.get(PARAMETER)
    return wish if wish in _TAGS else None


def negotiated(header: str) -> str:
    """Return the locale that fits an Accept-Language header best (RFC 9110, 12.5.4).

    Any Chinese gets the Chinese that there is; what fits nothing gets English.
    """
    for tag in _by_weight(header):
        language = tag.partition("-")[0]
        for known in LOCALES:
            if known.partition("_")[0] == language:
                return known
    return LOCALES[0]


def _by_weight(header: str) -> Iterator[str]:
    ranges = []
    for place, part in enumerate(header.split(",")[:_MOST_RANGES]):
        tag, _, parameter = part.strip().lower().partition(";")
        name, _, figure = parameter.strip().partition("=")
        try:
            weight = float(figure) if name.strip() == "q" else 1.0
        except ValueError:
            weight = 0.0
        if tag.strip() and 0 < weight <= 1:
            ranges.append((-weight, place, tag.strip()))
    yield from (tag for _weight, _place, tag in sorted(ranges))
