"""The letterhead of reports, exports and letters: company, address, policy and its version."""

from __future__ import annotations

from datetime import date

from include.frozen import StrictModel
from include.messages import Message, _
from include.policy.company import Company, PolicyTitle
from include.policy.rules import translated_message


class Letterhead(StrictModel):
    """The company and the policy that a report names at its head.

    Attributes:
        company: name of the company.
        address: postal address of the company.
        credit_code: unified social credit code of the company; empty if it is not stated.
        policy: name and version of the policy in words; None if they are not stated.
    """

    company: Message
    address: Message
    credit_code: str = ""
    policy: Message | None = None


def letterhead_of(company: Company | None) -> Letterhead | None:
    """Return the letterhead of a company, or None if the policy pack states no company."""
    if company is None:
        return None
    return Letterhead(
        company=company.name_message,
        address=company.address_message,
        credit_code=company.credit_code or "",
        policy=_policy_text(company.policy) if company.policy else None,
    )


def _policy_text(policy: PolicyTitle) -> Message:
    name, version = policy.name_message, policy.version_message
    if policy.effective_from is None:
        return _("{policy}, {version}", policy=name, version=version)
    return _(
        "{policy}, {version}, in force from {day}",
        policy=name,
        version=version,
        day=_day_text(policy.effective_from),
    )


def _day_text(day: date) -> Message:
    """Return a date as text. In Chinese, it has the form that laws use: 2026年1月1日."""
    chinese = f"{day.year}年{day.month}月{day.day}日"
    return translated_message({"en": day.isoformat(), "zh-CN": chinese})
