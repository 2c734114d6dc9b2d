"""Translate messages, and format numbers and times in the reader's language.

Babel reads each ``.po`` file when it is first used, which takes milliseconds. There is no compiled
``.mo`` file that could be outdated, so readers always get the translations that were reviewed in
git.
"""

from __future__ import annotations

import gc
import re
import string
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from babel import Locale
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

from include.evidence.indicators import NOT_MEASURED, requirement_message
from include.evidence.model import ControlState, Finding, Outcome
from include.messages import Message, Value, _

LOCALES = ("en", "zh_CN")
LOCALE_DIR = Path(__file__).parent / "locale"

_OUTCOMES = {
    Outcome.PASS: _("Passed"),
    Outcome.ATTENTION: _("Needs attention"),
    Outcome.FAIL: _("Failed"),
}
COULD_NOT_RUN = _("Could not run")
CONTROL_STATES = {
    ControlState.PASSED: _("passed"),
    ControlState.NO_EVIDENCE: _("no evidence"),
    ControlState.FAILED: _("failed"),
}
UNITS = {
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

# Control characters (except tab and line feed), lone surrogates and characters that change the text
# direction are shown as code points, so that a name cannot change how a page reads.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_ISO_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")


def language_tag(locale: str) -> str:
    """Return the BCP 47 language tag of a locale for file names and ``lang``, such as ``zh-CN``."""
    return locale.replace("_", "-")


def visible(text: str) -> str:
    r"""Replace control, surrogate and text direction characters by an escape such as ``\u202e``."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


@lru_cache
def _catalogue(locale: str) -> Mapping[str, str]:
    """Return the translations of a locale by source text.

    Fuzzy entries are left out. The result is empty for English, which is the source language.
    """
    if locale == "en":
        return {}
    if locale not in LOCALES:
        raise ValueError(f"no catalogue for locale {locale!r}; there are {', '.join(LOCALES)}")
    gc_was_enabled = gc.isenabled()
    gc.disable()  # reading with garbage collection takes four times as long
    try:
        with (LOCALE_DIR / locale / "LC_MESSAGES" / "messages.po").open("rb") as stream:
            catalogue = read_po(stream, locale=locale)
    finally:
        if gc_was_enabled:
            gc.enable()
    return {
        str(entry.id): str(entry.string)
        for entry in catalogue
        if entry.id and entry.string and not entry.fuzzy
    }


def warm() -> None:
    """Read the translations and formats of every language before the process is forked.

    Without this call, each forked process would read them, which takes 0.1 seconds.
    """
    for locale in LOCALES:
        _catalogue(locale)
        parsed = Locale.parse(locale)
        _read = parsed.number_symbols, parsed.datetime_formats


_ZONES = {"Asia/Shanghai": _("China Standard Time (UTC+08:00)")}
_EDGE = "\x00"  # marks both ends of a value; texts to join contain no control characters
_CHINESE = "[\u4e00-\u9fff《》（）“”、，。：；]"
_SPACE_IN_CHINESE = re.compile(
    f"(?<={_CHINESE}) (?={_EDGE}{_CHINESE})|(?<={_CHINESE}{_EDGE}) (?={_CHINESE})"
)


_FORMAT = string.Formatter()


@lru_cache(maxsize=4096)
def _parts(template: str) -> tuple[tuple[str, str | None, str], ...]:
    """Split a template, such as "Rows: {count}", at its fields.

    Returns:
        Tuples of a literal text, the name of the field after this text, and the kind of this field.
        The name is None if no field follows.

    Raises:
        ValueError: the template has a single brace.
    """
    return tuple((text, name, kind or "") for text, name, kind, _ in _FORMAT.parse(template))


class Translator:
    """Renders messages and values in one language and one timezone.

    Args:
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name of the timezone in which times are displayed.

    Raises:
        ValueError: the locale has no translation catalogue.
    """

    def __init__(self, locale: str, timezone: str = "Asia/Shanghai") -> None:
        self.locale = locale
        self.zone = ZoneInfo(timezone)
        self._babel = Locale.parse(locale)  # Babel would look it up for every number
        self._catalogue = _catalogue(locale)

    def gettext(self, text: str) -> str:
        """Translate a text without fields. Return the text unchanged if it has no translation."""
        return self._catalogue.get(text, text)

    def text(self, message: Message) -> str:
        """Translate a message and insert its values in the reader's format.

        In the fields ``{size:bytes}``, ``{age:duration}`` (seconds) and ``{rate:percent}`` (0 to
        1), the part after the colon states the format of a number. In all other fields, the type of
        the value decides the format.
        """
        own_translation = message.translations.get(language_tag(self.locale))
        template = visible(own_translation or self.gettext(message.text))
        if not message.values and "{" not in template and "}" not in template:
            return template
        try:
            parts = _parts(template)
        except ValueError:  # the text has a single brace: show it unchanged
            return template
        return self._filled(parts, message.values)

    def _filled(
        self, parts: Iterable[tuple[str, str | None, str]], values: Mapping[str, Message | Value]
    ) -> str:
        """Insert values into the fields of a template.

        Chinese has no spaces between words. A Chinese translation has a space on each side of a
        field, because the value may be a number or a Latin name. If the value is Chinese, these
        spaces are removed. Spaces inside a value remain.

        A field without a value is displayed as its name in braces. A faulty message therefore does
        not prevent the report from being written.

        Args:
            parts: literal texts and fields of the template, as returned by `_parts`.
            values: values by name of the field.
        """
        filled = []
        for text, name, kind in parts:
            filled.append(text)
            if name is None:
                continue
            if name in values:
                filled.append(f"{_EDGE}{self.value(values[name], kind)}{_EDGE}")
            else:
                filled.append(f"{{{name}}}")
        return _SPACE_IN_CHINESE.sub("", "".join(filled)).replace(_EDGE, "")

    def finding(self, finding: Finding) -> str:
        """Return the subject and the message of a finding as one text: "subject: message"."""
        if not (subject := self.subject(finding)):
            return self.text(finding.message)
        return self.text(_("{subject}: {message}", subject=subject, message=finding.message))

    def subject(self, finding: Finding) -> str:
        """Return the translated title of a finding's subject, or else the subject."""
        if finding.subject_title is not None:
            return self.text(finding.subject_title)
        return visible(finding.subject)

    def requirement(self, target: str) -> str:
        """Return the target of a control in words.

        Args:
            target: target in the policy pack. For example, the words for ``>= 95%`` are "at least
                95%".
        """
        return self.text(requirement_message(target))

    def value(self, value: Message | Value | None, kind: str = "") -> str:
        """Format a value of a message, a key figure or a table cell.

        Args:
            value: value to format; None is displayed as "not measured".
            kind: format of a number, such as ``bytes`` or ``percent``; empty for a plain number.
        """
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
        if _ISO_DATETIME.fullmatch(value):  # JSON turned the time into text
            try:
                return self.datetime(datetime.fromisoformat(value))
            except ValueError:  # such as the hour 99
                return visible(value)
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
        """Format a number with grouped thousands and at most three decimals.

        A number between -1 and 1 gets at most three significant digits. Infinite numbers and NaN
        are displayed as "not measured".
        """
        if value != value or value in (float("inf"), float("-inf")):
            return self.text(NOT_MEASURED)
        if isinstance(value, int):
            return f"{value:,}"  # Babel writes the same in both languages, but takes much longer
        pattern = "@##" if 0 < abs(value) < 1 else "#,##0.###"
        return str(format_decimal(value, format=pattern, locale=self._babel))

    def percent(self, ratio: float) -> str:
        """Format a ratio from 0 to 1 as a percentage.

        A ratio below 1 is never rounded up to 100%, and a ratio above 0 is never rounded down to
        0%.
        """
        digits = 2
        while digits < 8 and round(ratio, digits + 2) in (0.0, 1.0) and ratio not in (0, 1):
            digits += 1
        pattern = "#,##0." + "#" * digits + "%"
        return str(format_percent(ratio, format=pattern, locale=self._babel))

    def bytes(self, size: float) -> str:
        """Format a number of bytes in binary units, such as ``1.5 GiB``."""
        power = 0
        while abs(size) >= 1024 and power < len(_BYTE_UNITS) - 1:
            size /= 1024
            power += 1
        return f"{self.number(round(size, 2 if power else 0))} {_BYTE_UNITS[power]}"

    def duration(self, seconds: float) -> str:
        """Format a number of seconds in its two largest units, such as ``2 h 5 min``."""
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
        """Format a duration in a single unit: days, hours, minutes or seconds.

        Args:
            count: number of these units.
            size: length of the unit in seconds: 86400, 3600, 60 or 1.
        """
        return self.text(dict(_SPANS)[size](count))

    def quantity(self, value: Message | Value | None, unit: str) -> str:
        """Format a value with its unit.

        Args:
            value: value to format; texts and times are formatted without the unit.
            unit: ``bytes``, ``seconds``, ``duration`` (in seconds), ``percent`` or ``ratio``
                (values from 0 to 1); or the name of counted objects, such as ``rows``; or empty or
                ``1`` for a number without a unit. A name without a translation is displayed
                unchanged.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.value(value)
        figure = self._figure(value, unit)
        if unit in ("", "1", "bytes", "seconds", "duration", "percent", "ratio"):
            return figure
        return f"{figure} {self.unit(unit)}"

    def unit(self, unit: str) -> str:
        """Return the translated name of a unit, or the unit itself if it has no translation."""
        return self.text(UNITS[unit]) if unit in UNITS else visible(unit)

    def datetime(self, moment: datetime, timezone: str | None = None, seconds: bool = False) -> str:
        """Format a time with its UTC offset.

        Args:
            moment: time with a timezone.
            timezone: IANA name of the displayed timezone; None for the timezone of the translator.
            seconds: whether to display seconds.

        Raises:
            ValueError: the time has no timezone.
        """
        if moment.tzinfo is None:
            raise ValueError("a report shows only times with a timezone")
        local = moment.astimezone(ZoneInfo(timezone) if timezone else self.zone)
        offset = local.strftime("%z")
        form = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
        return f"{local.strftime(form)} UTC{offset[:3]}:{offset[3:5]}"

    def zone_name(self, timezone: str | None = None) -> str:
        """Return the name of a timezone, such as "China Standard Time (UTC+08:00)".

        Args:
            timezone: IANA name of the timezone; None for the timezone of the translator. A timezone
                without a name in the catalogue is returned as its IANA name.
        """
        key = timezone or self.zone.key
        return self.text(_ZONES[key]) if key in _ZONES else visible(key)

    def outcome(self, outcome: Outcome, *, could_not_run: bool = False) -> str:
        """Return the translated name of an outcome.

        Args:
            outcome: the outcome.
            could_not_run: whether the outcome is that of a run that could not run. The result then
                states this instead of the outcome.
        """
        return self.text(COULD_NOT_RUN if could_not_run else _OUTCOMES[outcome])
