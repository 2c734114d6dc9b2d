"""A question in Airflow, as Markdown in both languages, and the answer to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.approvals.form import Field
from include.messages import Message
from include.reports.i18n import Translator


@dataclass(frozen=True)
class Answer:
    """A person's answer, or the fact that nobody answered in time.

    Attributes:
        option: the chosen one; empty if nobody answered.
        reason: the person's words.
        user: id of the person; None if nobody answered in time.
        at: when the person answered; None if nobody did.
        name: of the person, which some auth managers store apart from the id.
        given: all fields that the person filled in, by name, as text.
        entered: the same as Airflow passes it: texts, numbers, booleans, lists. An answer may hold
            anything, so `include.approvals.form.read_form` reads it.
        content: `Question.content` of the form that was answered; empty if the answer has none.
    """

    option: str
    reason: str
    user: str | None
    at: datetime | None
    name: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    entered: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""


LANGUAGES = {"zh_CN": "中文", "en": "English"}
LONGEST = 400  # characters of a text that is shown
# What could change the page, hide text or start a formula: controls, Markdown, zero-width and
# direction marks.
HOSTILE = (
    r"[\u0001-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"|<>*_`#!~&=+\"'\\\[\]()]"
)


@dataclass(frozen=True)
class Question:
    """A question that a person decides on.

    Attributes:
        subject: one line.
        body: Markdown.
        assigned: user ids of those who may answer; never empty.
        form: what else is entered, in place of the form of the step; empty leaves the step's.
        content: identifies exactly what is decided on. The form carries it to the answer, which
            counts only while it is still this.
        choices: what may be answered, in place of the choices of the step; empty leaves the step's.
    """

    subject: str
    body: str
    assigned: list[str]
    content: str
    form: tuple[Field, ...] = ()
    choices: tuple[str, ...] = ()


class AskAgain(Exception):
    """Raised when an answer does not count, or none came: the question is asked again.

    It is made anew too, with the people and the words of then; so what it has to say about the
    answer before is kept where it is made from.

    Args:
        reason: why; no customer data. The log and the record of the step show it.
        timezone: in which the log shows moments, an IANA name.

    Attributes:
        reason: see above.
    """

    def __init__(self, reason: Message, timezone: str = "UTC") -> None:
        super().__init__(Translator("en", timezone).text(reason))
        self.reason = reason


def harmless(text: str) -> str:
    """Return a text that is nobody's secret without what could change the page."""
    return re.sub(HOSTILE, "·", text[:LONGEST])


def in_both(message: Message, timezone: str = "UTC") -> str:
    """Return a message in both languages, on one line; once where it is the same in both."""
    texts = (Translator(language, timezone).text(message) for language in LANGUAGES)
    return " / ".join(dict.fromkeys(texts))


def names(accounts: Sequence[str]) -> str:
    """User ids, without what could change the page; many have an underscore, which is escaped."""
    return ", ".join("\\_".join(map(harmless, account.split("_"))) for account in accounts)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '·') for cell in line)} |" for line in lines)
