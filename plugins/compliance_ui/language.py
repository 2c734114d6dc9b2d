"""Choose the language of a page: the language that the reader selected, or else the browser's."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request

from include.reports.i18n import LOCALES, language_tag

COOKIE = "parcelseal_language"
PARAMETER = "lang"
COOKIE_LIFETIME = 365 * 86400  # seconds
_TAGS = {language_tag(locale): locale for locale in LOCALES}
_MAX_RANGES = 20  # language ranges of a header; browsers send a handful


def locale_of(request: Request) -> str:
    """Return the locale in which to answer a request: ``en`` or ``zh_CN``."""
    for tag in (request.query_params.get(PARAMETER), request.cookies.get(COOKIE)):
        if tag in _TAGS:
            return _TAGS[tag]
    return negotiate_locale(request.headers.get("accept-language", ""))


def selected_language(request: Request) -> str | None:
    """Return the language tag that a request selects in its URL, or None if it selects none."""
    tag = request.query_params.get(PARAMETER)
    return tag if tag in _TAGS else None


def negotiate_locale(header: str) -> str:
    """Return the locale that fits an Accept-Language header best (RFC 9110, section 12.5.4).

    Every variant of Chinese gives ``zh_CN``. The default is ``en``.
    """
    for tag in _by_weight(header):
        language = tag.partition("-")[0]
        for locale in LOCALES:
            if locale.partition("_")[0] == language:
                return locale
    return LOCALES[0]


def _by_weight(header: str) -> Iterator[str]:
    ranges = []
    for position, part in enumerate(header.split(",")[:_MAX_RANGES]):
        tag, _, parameter = part.strip().lower().partition(";")
        name, _, figure = parameter.strip().partition("=")
        try:
            weight = float(figure) if name.strip() == "q" else 1.0
        except ValueError:
            weight = 0.0
        if tag.strip() and 0 < weight <= 1:
            ranges.append((-weight, position, tag.strip()))
    yield from (tag for _weight, _position, tag in sorted(ranges))
