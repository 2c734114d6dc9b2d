"""What a questionnaire comes to: exact fractions, so that no mark is missed by a rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from include.messages import Message
from include.partners.rules import Question
from include.policy.rates import ceiling


class Answer(StrEnum):
    """What a partner answered; yes is what should be."""

    YES = "yes"
    NO = "no"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True)
class Asked:
    """A question as it was put to a partner.

    Attributes:
        id: stable name.
        text: the question.
        basis: where it comes from.
        weight: how much it counts.
        critical: whether a no fails the review whatever the score.
        may_not_apply: whether it may be answered with "not applicable".
    """

    id: str
    text: Message
    basis: Message
    weight: int
    critical: bool
    may_not_apply: bool

    @classmethod
    def of(cls, one: Question, own: Message) -> Asked:
        """A question of the pack; ``own`` is said of the company's own rules."""
        return cls(
            id=one.id,
            text=one.message,
            basis=own if one.basis == "business" else one.basis.message,
            weight=one.weight,
            critical=one.critical,
            may_not_apply=one.may_not_apply,
        )


@dataclass(frozen=True)
class Score:
    """What answers come to.

    Attributes:
        share: of the weight of what applies, answered with yes; None where nothing applies.
        pass_mark: share from which it passes.
        failed: ids of critical questions that were not answered with yes.
    """

    share: Fraction | None
    pass_mark: Fraction
    failed: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether the mark is reached and no critical question failed; nothing shown passes not."""
        return self.share is not None and self.share >= self.pass_mark and not self.failed


def score(asked: Sequence[Asked], answers: Mapping[str, Answer], pass_mark: Fraction) -> Score:
    """Weigh the answers to a questionnaire; what was not answered counts as no."""
    applies = [one for one in asked if answers.get(one.id) is not Answer.NOT_APPLICABLE]
    met = [one for one in applies if answers.get(one.id) is Answer.YES]
    whole = sum(one.weight for one in applies)
    return Score(
        share=Fraction(sum(one.weight for one in met), whole) if whole else None,
        pass_mark=pass_mark,
        failed=tuple(one.id for one in asked if one.critical and one not in met),
    )


def shown(share: Fraction) -> str:
    """A score for people, rounded down: what is short of the mark never looks like it."""
    return f"{-ceiling(-share * 100, 2):f}".rstrip("0").rstrip(".") + "%"
