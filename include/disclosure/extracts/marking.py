"""The visible marking of an extract, in Chinese and English."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from include.disclosure.extracts.model import Marks
from include.messages import Message, _
from include.reports.i18n import Translator

_LOCALES = ("zh_CN", "en")


def confidential() -> Message:
    """Return the confidentiality level of an extract."""
    return _("Confidential")


def request_mark(marks: Marks) -> Message:
    """Return the number of the request. It is a text, so that its digits are not grouped."""
    return _("Request for information {number}", number=str(marks.request))


def expiry_mark(marks: Marks) -> Message:
    """Return the end of the approved use."""
    return _("May be used until {moment}", moment=marks.expires_at)


def recipient_mark(marks: Marks) -> Message:
    """Return the name of the recipient."""
    return _("Recipient of the extract: {name}", name=marks.recipient)


def purpose_mark(marks: Marks) -> Message:
    """Return the approved purpose."""
    return _("Purpose of use: {purpose}", purpose=marks.purpose)


def marking(marks: Marks) -> list[Message]:
    """Return the complete marking, one message per line."""
    return [
        confidential(),
        *([marks.company] if marks.company else []),
        request_mark(marks),
        recipient_mark(marks),
        purpose_mark(marks),
        expiry_mark(marks),
        _(
            "Only the recipient may use this extract, and only for this purpose. Delete it and all "
            "copies by the end of this period."
        ),
    ]


def in_both_languages(messages: Sequence[Message], zone: ZoneInfo) -> list[list[str]]:
    """Return messages in Chinese, and then in English.

    Args:
        messages: messages of a text, one per line.
        zone: timezone of displayed times.

    Returns:
        The lines of the text in Chinese, and the lines in English.
    """
    translators = [Translator(locale, zone.key) for locale in _LOCALES]
    return [[translator.text(message) for message in messages] for translator in translators]


def in_one_line(message: Message, zone: ZoneInfo, separator: str = " / ") -> str:
    """Return a message in Chinese and English, or only once if both texts are equal."""
    texts = [lines[0] for lines in in_both_languages([message], zone)]
    return separator.join(dict.fromkeys(texts))
