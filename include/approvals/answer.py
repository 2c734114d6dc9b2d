"""The answer to a question that a person was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


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
