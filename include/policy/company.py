"""The company and the policy document that reports and exports name in their letterhead."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from include.messages import Message
from include.policy.rules import Day, Rule, Texts, translated_message

LONGEST_LINE = 200
"""Largest number of characters in a text of the letterhead."""

_CREDIT_CODE_DIGITS = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_CODE = re.compile(rf"[{_CREDIT_CODE_DIGITS}]{{2}}[0-9]{{6}}[{_CREDIT_CODE_DIGITS}]{{10}}")


def _require_one_line(texts: dict[str, str]) -> dict[str, str]:
    for text in texts.values():
        if len(text) > LONGEST_LINE or not text.isprintable():
            raise ValueError(
                f"should be one line of at most {LONGEST_LINE} characters, as it is printed in a "
                "letterhead"
            )
    return texts


def _require_credit_code(code: str) -> str:
    """Return a unified social credit code whose check character is correct (GB 32100-2015).

    Raises:
        ValueError: the code has another form, or its check character is wrong.
    """
    if _CREDIT_CODE.fullmatch(code):
        values = [_CREDIT_CODE_DIGITS.index(digit) for digit in code]
        weighted = sum(value * pow(3, at, 31) for at, value in enumerate(values[:17]))
        if values[17] == -weighted % 31:
            return code
    raise ValueError("is not a unified social credit code (18 characters, GB 32100-2015)")


Line = Annotated[Texts, AfterValidator(_require_one_line)]
"""A text in all languages, each of one line."""


class PolicyTitle(Rule):
    """The name and version of the policy document that the pack implements.

    Attributes:
        name: Name of the policy document.
        version: Version of the policy document in words, such as ``third edition``.
        effective_from: Date from which this version applies.
    """

    name: Line
    version: Line
    effective_from: Day | None = None

    @property
    def name_message(self) -> Message:
        """Return the name of the policy document as a message for reports."""
        return translated_message(self.name)

    @property
    def version_message(self) -> Message:
        """Return the version of the policy document as a message for reports."""
        return translated_message(self.version)


class Company(Rule):
    """The company that the policy binds, as reports, exports and letters name it.

    Attributes:
        name: Full name of the company, as it is registered.
        address: Postal address of the company.
        credit_code: Unified social credit code of the company (GB 32100-2015).
        policy: The policy document that this pack implements.
    """

    name: Line
    address: Line
    credit_code: Annotated[
        Annotated[str, AfterValidator(_require_credit_code)] | None,
        Field(examples=["91000000MA0000000N"]),
    ] = None
    policy: PolicyTitle | None = None

    @property
    def name_message(self) -> Message:
        """Return the name of the company as a message for reports."""
        return translated_message(self.name)

    @property
    def address_message(self) -> Message:
        """Return the address of the company as a message for reports."""
        return translated_message(self.address)
