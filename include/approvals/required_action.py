"""Required actions in Airflow: the text of their pages in two languages, and people's answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.approvals.form import Field
from include.messages import Message, listed, verbatim
from include.policy.rules import translated_message
from include.reports.i18n import Translator, language_tag


@dataclass(frozen=True)
class Answer:
    """A person's answer to a required action, or the fact that nobody answered in time.

    Attributes:
        option: chosen option; empty if nobody answered.
        reason: reason that the person entered.
        user: user id of the person; None if nobody answered in time.
        at: time of the answer; None if nobody answered in time.
        name: name of the person, if the auth manager stores it separately from the user id.
        texts: field name -> value as text, for each field that the person filled in.
        entered: field name -> value as Airflow passes it (text, number, boolean or list), for each
            field that the person filled in. `include.approvals.form.read_form` validates these
            values.
        content: `RequiredAction.content` in the form that the person filled in; empty if the form
            does not contain it.
    """

    option: str
    reason: str
    user: str | None
    at: datetime | None
    name: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    entered: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""


LANGUAGES = {"zh_CN": "中文", "en": "English"}
_BETWEEN = " / "  # between the Chinese and the English text of a line
_CHINESE = re.compile("[\u4e00-\u9fff]")
MAX_TEXT_LENGTH = 400  # maximum characters of a shown text
# Characters that could change the page, hide text or start a formula: controls, Markdown,
# zero-width and direction marks.
HOSTILE = (
    r"[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"|<>*_`#!~&=+\"'\\\[\]()]"
)


@dataclass(frozen=True)
class RequiredAction:
    """A required action: the page on which Airflow asks people for an answer.

    Attributes:
        subject: subject of the page in one line.
        body: text of the page, in Markdown.
        assigned: user ids of the people who may answer; never empty.
        content: text that identifies the exact content to decide on. The form contains this text.
            An answer is valid only if its form contains the text of the newest required action.
        form: form fields of this required action; if empty, the form fields of the step are used.
        choices: options of this required action; if empty, the options of the step are used.
        due_at: deadline of the requested work, such as the review deadline of a batch; None if the
            work is due when the workflow stops waiting for the answer. The work list shows this
            deadline. A new required action with the same content keeps it.
    """

    subject: str
    body: str
    assigned: list[str]
    content: str
    form: tuple[Field, ...] = ()
    choices: tuple[str, ...] = ()
    due_at: datetime | None = None


class InvalidAnswer(Exception):
    """Raised when an answer is invalid or missing. The task then creates another required action.

    The new required action has the people and the text of that moment. To show the reason there,
    the code that raises the error must store it in the data that the required action is built from.

    Args:
        reason: why the answer is invalid, without customer data. The log and the step's record show
            it.
        timezone: IANA name of the log's timezone.

    Attributes:
        reason: why the answer is invalid, without customer data.
    """

    def __init__(self, reason: Message, timezone: str = "UTC") -> None:
        super().__init__(Translator("en", timezone).text(reason))
        self.reason = reason


def escape_text(text: str) -> str:
    """Replace characters that could change the layout of a page, and shorten the text.

    The result has at most `MAX_TEXT_LENGTH` characters.
    """
    return re.sub(HOSTILE, "·", text[:MAX_TEXT_LENGTH])


def escape_message(message: Message) -> Message:
    """Return a message whose text is escaped with `escape_text` in each language."""
    return translated_message(
        {
            language_tag(locale): escape_text(Translator(locale).text(message))
            for locale in LANGUAGES
        }
    )


def in_both_languages(message: Message, timezone: str = "UTC") -> str:
    """Return a message in Chinese and English on one line. If both texts are equal, return one."""
    texts = (Translator(language, timezone).text(message) for language in LANGUAGES)
    return _BETWEEN.join(dict.fromkeys(texts))


def split_languages(line: str) -> Message:
    """Return the message of a line that `in_both_languages` made.

    A line whose halves are not one Chinese and one English text, such as a line in one language, is
    returned whole in each language.
    """
    parts = line.split(_BETWEEN)
    half = len(parts) // 2
    chinese, english = _BETWEEN.join(parts[:half]), _BETWEEN.join(parts[half:])
    if len(parts) % 2 or not _CHINESE.search(chinese) or _CHINESE.search(english):
        return verbatim(line)
    return translated_message({"en": english, "zh-CN": chinese})


def format_accounts(accounts: Sequence[str]) -> Message:
    """Return a list of user ids as Markdown that cannot change the layout of the page."""
    return listed(["\\_".join(map(escape_text, account.split("_"))) for account in accounts])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with a header row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '·') for cell in line)} |" for line in lines)
