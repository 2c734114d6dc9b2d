"""Days on which agreements and security reviews of partners end, read from a sealed check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from pydantic import ValidationError

from include.evidence.model import Result
from include.messages import Message, _
from include.partners.check import CheckedPartner

CHECK_STEP = "check"


@dataclass(frozen=True)
class EndingTerm:
    """An agreement or security review of a partner and its last day.

    Attributes:
        title: name of the partner and what ends.
        last_day: last day on which the agreement or review is in force.
    """

    title: Message
    last_day: date


def ending_terms(result: Result) -> Iterator[EndingTerm]:
    """Yield the agreements and reviews of live partners, as a run of `review_partners` sealed them.

    Partners whose entry does not have the present format are left out.

    Args:
        result: the sealed result of the run.
    """
    partners = [
        partner
        for step in result.steps
        if step.step == CHECK_STEP
        for partner in step.data.get("partners") or []
    ]
    for values in partners:
        try:
            partner = CheckedPartner.model_validate(values)
        except ValidationError:
            continue
        if not partner.live:
            continue
        name = partner.name or partner.partner
        for term, title in (
            (partner.nda, _("{partner}: confidentiality agreement ends", partner=name)),
            (partner.agreement, _("{partner}: data-processing agreement ends", partner=name)),
            (partner.review, _("{partner}: security review ends", partner=name)),
        ):
            if term is not None and term.until is not None:
                yield EndingTerm(title, term.until)
