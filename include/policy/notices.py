"""notices.yaml: how people are told things."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints

from include.policy.period import Period, PositivePeriod
from include.policy.rules import Rule, some

Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?\z")]


class InDoubt(Rule):
    """What is done with a message of which nobody knows whether it went out.

    A process may be killed, or a connection cut, after the server took a message and before that
    was recorded. ``resend`` sends it again (at least once; mail has the same Message-ID, by which
    a second copy is known), ``report`` does not and names it in the report (at most once).

    Attributes:
        mail: of the channel mail.
        robot: of the channel robot, whose messages have nothing that tells a second copy.
    """

    mail: Literal["resend", "report"] = "resend"
    robot: Literal["resend", "report"] = "report"


class NoticeRules(Rule):
    """notices.yaml.

    Attributes:
        languages: of every message, in this order.
        workdays_only: whether what can wait is told on workdays only.
        retry_after: pauses before a deferred message is tried again; the last one repeats.
        give_up_after: time after its first deferral at which a notice is reported instead.
        in_doubt: what is done when nobody knows whether a message went out.
        domains: mail goes to addresses of these domains and their subdomains only; empty means any.
            Letters to customers, whose addresses are looked up, are not held against it.
        may_opt_out: kinds of notices that a recipient may refuse; all others are duties.
    """

    languages: Annotated[tuple[Literal["zh-CN", "en"], ...], AfterValidator(some)] = ("zh-CN", "en")
    workdays_only: bool = True
    retry_after: Annotated[tuple[PositivePeriod, ...], AfterValidator(some)] = (
        Period.parse("PT1M"),
        Period.parse("PT5M"),
        Period.parse("PT15M"),
        Period.parse("PT1H"),
    )
    give_up_after: PositivePeriod = Period.parse("P3D")
    in_doubt: InDoubt = InDoubt()
    domains: tuple[Domain, ...] = ()
    may_opt_out: tuple[Literal["training.department"], ...] = ()
