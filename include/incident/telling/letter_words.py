"""What a person sees before deciding whether people are told: the letter, and whom it reaches."""

from __future__ import annotations

from include.incident.rules import Letter
from include.incident.telling.addresses import Reach
from include.incident.telling.notifying import NoticePlan
from include.messages import Message, _
from include.notify.texts import LetterText


def letter_lines(letter: LetterText) -> list[Message]:
    """The letter as it would be sent, part by part."""
    parts = [_("“{title}”: {words}", title=one.title, words=one.words) for one in letter.parts]
    return [_("The letter: {heading}", heading=letter.heading), letter.opening, *parts]


def reach_lines(plan: NoticePlan, reach: Reach | None, rules: Letter) -> list[Message]:
    """Whom it would go to: the dry run.

    Args:
        plan: whom it is meant for.
        reach: who has a usable address; None in a drill.
        rules: of incident.yaml.
    """
    lines = [
        _(
            "{people} people are affected; {new} of them were sent nothing before.",
            people=plan.people,
            new=plan.new,
        )
    ]
    if reach is None:
        return [*lines, _("DRILL: no address was looked up.")]
    lines.append(
        _(
            "{usable} have an address of their own; {without} have none, of {malformed} it cannot "
            "be used, {shared} share one with at least {most} others.",
            usable=reach.usable,
            without=reach.without,
            malformed=reach.malformed,
            shared=reach.shared,
            most=rules.shared_by - 1,
        )
    )
    if plan.people and reach.unusable > rules.unusable_at_most * plan.people:
        lines.append(
            _(
                "UNUSUALLY MANY cannot be reached by mail: is this the right list? Tick that it "
                "was looked at, or do not tell yet."
            )
        )
    return lines
