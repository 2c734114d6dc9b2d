"""Words, numbers and times in the reader's language.

The catalogue is the ``.po`` file itself, read with Babel on first use (milliseconds): what is
reviewed in git is what readers get, and no compiled ``.mo`` can be forgotten or go stale.
"""

from __future__ import annotations

import gc
import re
import string
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

from include.evidence.model import ControlState, Finding, Outcome
from include.messages import Message, Value, _

LOCALES = ("en", "zh_CN")
LOCALE_DIR = Path(__file__).parent / "locale"
NOT_MEASURED = _("not measured")

_OUTCOMES = {
    Outcome.PASS: _("Pass"),
    Outcome.ATTENTION: _("Attention"),
    Outcome.FAIL: _("Fail"),
}
CONTROL_STATES = {
    ControlState.HELD: _("held"),
    ControlState.NOT_SHOWN: _("not shown"),
    ControlState.NOT_HELD: _("did not hold"),
}
_UNITS = {
    "rows": _("rows"),
    "records": _("records"),
    "tables": _("tables"),
    "databases": _("databases"),
    "files": _("files"),
    "objects": _("objects"),
    "people": _("people"),
    "items": _("items"),
    "days": _("days"),
    "hours": _("hours"),
    "minutes": _("minutes"),
}
_SPANS: tuple[tuple[int, Callable[[float], Message]], ...] = (
    (86400, lambda n: _("{n} d", n=n)),
    (3600, lambda n: _("{n} h", n=n)),
    (60, lambda n: _("{n} min", n=n)),
    (1, lambda n: _("{n} s", n=n)),
)
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_YES, _NO = _("yes"), _("no")

# Controls (but tab and line feed), lone surrogates and the characters that turn text around:
# shown as code points, so that a name cannot make a page say something else than its text.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_ISO_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")


def language_tag(locale: str) -> str:
    """BCP 47 form of a locale, ``zh-CN`` for ``zh_CN``; used in file names and ``lang``."""
    return locale.replace("_", "-")


def visible(text: str) -> str:
    r"""Show control, surrogate and direction characters as ``\u202e``."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


@lru_cache
def _catalogue(locale: str) -> Mapping[str, str]:
    """Source sentence -> translation, without fuzzy entries; empty for English."""
    if locale == "en":
        return {}
    if locale not in LOCALES:
        raise ValueError(f"no catalogue for locale {locale!r}; there are {', '.join(LOCALES)}")
    collecting = gc.isenabled()
    gc.disable()  # else it goes over all that is there again and again, four times as long
    try:
        with (LOCALE_DIR / locale / "LC_MESSAGES" / "messages.po").open("rb") as stream:
            catalogue = read_po(stream, locale=locale)
    finally:
        if collecting:
            gc.enable()
    return {
        str(entry.id): str(entry.string)
        for entry in catalogue
        if entry.id and entry.string and not entry.fuzzy
    }


def warm() -> None:
    """Read translations and formats of every language ahead, in a process that others fork from.

    Else each of them reads them anew, which takes 0.1 seconds.
    """
    for locale in LOCALES:
        _catalogue(locale)
        parsed = Locale.parse(locale)
        _read = parsed.number_symbols, parsed.datetime_formats


class _Sentence(string.Formatter):
    """``str.format`` with plain ``{name}`` or ``{name:kind}`` fields.

    Attribute and index access is not followed, and a field without a value stays visible:
    a sentence with a defect must not cost the whole report.
    """

    def __init__(self, translator: Translator) -> None:
        self._translator = translator

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        return kwargs.get(field_name, _Missing(field_name)), field_name

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        return value

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, _Missing):
            return f"{{{value.name}}}"
        return self._translator.value(value, format_spec)


class _Missing:
    def __init__(self, name: str) -> None:
        self.name = name


class Translator:
    """Renders messages and values in one language and timezone.

    Args:
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name; times are shown in it, with the offset.

    Raises:
        ValueError: there is no catalogue for the locale.
    """

    def __init__(self, locale: str, timezone: str = "Asia/Shanghai") -> None:
        self.locale = locale
        self.zone = ZoneInfo(timezone)
        self._babel = Locale.parse(locale)  # Babel would look it up for every number
        self._catalogue = _catalogue(locale)
        self._sentence = _Sentence(self)

    def gettext(self, text: str) -> str:
        """Translate a source sentence as it stands; English when there is no translation."""
        return self._catalogue.get(text, text)

    def text(self, message: Message) -> str:
        """Translate a message and put its values in, each in the reader's format.

        ``{size:bytes}``, ``{age:duration}`` (seconds) and ``{rate:percent}`` (0 to 1) name
        the format of a number; everything else follows the value's type.
        """
        own = message.translations.get(language_tag(self.locale))
        template = own or self.gettext(message.text)
        if not message.values and "{" not in template and "}" not in template:
            return visible(template)
        try:
            return self._sentence.vformat(template, (), dict(message.values))
        except ValueError:  # a lone brace: show the sentence as it is
            return visible(template)

    def finding(self, finding: Finding) -> str:
        """Return the subject and message of a finding; the message need not name the subject."""
        if not finding.subject:
            return self.text(finding.message)
        return self.text(
            _("{subject}: {message}", subject=finding.subject, message=finding.message)
        )

    def value(self, value: Message | Value | None, kind: str = "") -> str:
        """Format anything a message, fact or cell may hold."""
        if value is None:
            return self.text(NOT_MEASURED)
        if isinstance(value, Message):
            return self.text(value)
        if isinstance(value, Outcome):
            return self.outcome(value)
        if isinstance(value, bool):
            return self.text(_YES if value else _NO)
        if isinstance(value, int | float):
            return self._figure(value, kind)
        if isinstance(value, datetime):
            return self.datetime(value)
        if isinstance(value, date):
            return value.isoformat()
        if _ISO_DATETIME.fullmatch(value):  # a time that has been through JSON
            return self.datetime(datetime.fromisoformat(value))
        return visible(value)

    def _figure(self, value: float, kind: str) -> str:
        match kind:
            case "bytes":
                return self.bytes(value)
            case "duration" | "seconds":
                return self.duration(value)
            case "percent" | "ratio":
                return self.percent(value)
            case _:
                return self.number(value)

    def number(self, value: float) -> str:
        """Group thousands; three decimals, or three significant digits below 1."""
        if value != value or value in (float("inf"), float("-inf")):
            return self.text(NOT_MEASURED)
        pattern = "@##" if 0 < abs(value) < 1 else "#,##0.###"
        return str(format_decimal(value, format=pattern, locale=self._babel))

    def percent(self, ratio: float) -> str:
        """A ratio from 0 to 1 as per cent; what is short of 100 % is never rounded up to it."""
        digits = 2
        while digits < 8 and round(ratio, digits + 2) in (0.0, 1.0) and ratio not in (0, 1):
            digits += 1
        pattern = "#,##0." + "#" * digits + "%"
        return str(format_percent(ratio, format=pattern, locale=self._babel))

    def bytes(self, size: float) -> str:
        """A size in binary units, ``1.5 GiB``."""
        power = 0
        while abs(size) >= 1024 and power < len(_BYTE_UNITS) - 1:
            size /= 1024
            power += 1
        return f"{self.number(round(size, 2 if power else 0))} {_BYTE_UNITS[power]}"

    def duration(self, seconds: float) -> str:
        """A length of time in its two largest units, ``2 h 5 min``."""
        if seconds < 0:
            return f"-{self.duration(-seconds)}"
        if 0 < seconds < 1:
            return self.text(_("{n} ms", n=max(1, round(seconds * 1000))))
        if seconds < 60:
            return self.text(_("{n} s", n=round(seconds, 1)))
        rest = round(seconds)
        parts: list[str] = []
        for size, message in _SPANS:
            count, rest = divmod(rest, size)
            if count or parts:
                parts.append(self.text(message(count)) if count else "")
        return " ".join(part for part in parts[:2] if part)

    def span(self, count: float, size: int) -> str:
        """A count of one unit of time; ``size`` is 86400, 3600, 60 or 1 seconds."""
        return self.text(dict(_SPANS)[size](count))

    def quantity(self, value: Message | Value | None, unit: str) -> str:
        """A value with its unit.

        Args:
            value: the figure; text and times are formatted without the unit.
            unit: ``bytes``, ``seconds``, ``percent``; a counted thing such as ``rows``; empty
                or ``1`` for a bare number. A unit without translation is shown as it is.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.value(value)
        figure = self._figure(value, unit)
        if unit in ("", "1", "bytes", "seconds", "duration", "percent", "ratio"):
            return figure
        return f"{figure} {self.unit(unit)}"

    def unit(self, unit: str) -> str:
        """The word for a unit."""
        return self.text(_UNITS[unit]) if unit in _UNITS else visible(unit)

    def datetime(self, moment: datetime, timezone: str | None = None, seconds: bool = False) -> str:
        """A time in the report's (or the given) timezone with its offset.

        Raises:
            ValueError: the time has no timezone.
        """
        if moment.tzinfo is None:
            raise ValueError("a report shows only times with a timezone")
        local = moment.astimezone(ZoneInfo(timezone) if timezone else self.zone)
        offset = local.strftime("%z")
        form = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
        return f"{local.strftime(form)} UTC{offset[:3]}:{offset[3:5]}"

    def outcome(self, outcome: Outcome) -> str:
        """The word for an outcome."""
        return self.text(_OUTCOMES[outcome])
