"""Whether affected people are told: decided by another person than who wrote the impact.

They need not be told where measures avoid the harm (PIPL (2021-11-01) 57); that is a decision with
reasons too. It is bound to the letter's words and the list of people, by their digest.
"""

from __future__ import annotations

from collections.abc import Sequence

from include.approvals import registry
from include.approvals.form import Field
from include.approvals.question import Question
from include.approvals.registry import APPROVE, REJECT, Refusal
from include.evidence.model import StepRecord
from include.incident.desk import Desk, File
from include.incident.names import UPDATES, Kind
from include.incident.steps import answer, page
from include.incident.steps.answer import Given
from include.incident.team import team_of, who_answered
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook, Reach
from include.incident.telling.letter_words import letter_lines, reach_lines
from include.incident.telling.notifying import NoticePlan
from include.incident.timeline import last_of
from include.messages import Message, _, listed, verbatim
from include.policy.incident import HumanStep
from include.services.errors import ControlFailed

STEP: HumanStep = "decide"
TELL, DO_NOT_TELL = "Tell people", "Do not tell"
REASON, LOOKED = "reason", "list_looked_at"


def form() -> list[Field]:
    """Reasons, and that the list of addresses was looked at."""
    return [
        Field(
            name=REASON,
            title=_("Reasons"),
            kind="long_text",
            required=True,
            longest=page.LONGEST,
        ),
        Field(
            name=LOOKED,
            title=_("The list of addresses was looked at and is the right one"),
            help=_("Needed where unusually many people have no usable address."),
            kind="yes_no",
        ),
    ]


def ask(desk: Desk, number: str) -> Question | None:
    """Ask for the decision, with the dry run; None where one stands for just these people.

    Where nobody is affected, or an addition comes before the first decision, which will be about
    all, nobody is asked either.

    Raises:
        ControlFailed: a part of the letter is missing, or there is no list of people at all; it is
            named.
    """
    file = page.led(desk, number)
    if file is None:
        return None
    if desk.run.dag_id == UPDATES and last_of(file.entries, Kind.DECIDED) is None:
        return None
    made, left = notifying.plan(desk, file), notifying.not_listed(desk, file)
    if decided_on(file, made):
        return None
    if not made.people:
        if left:
            raise ControlFailed(
                f"There is no list of affected people yet: nothing was read in {', '.join(left)}.",
                "Make it reachable, clear the tasks `assess` and `preserve`, then this one.",
            )
        notifying.nobody(desk, file, made)
        return None
    writers = sorted(who_answered(file.entries, Kind.IMPACT))
    with desk.state.begin() as conn:
        notifying.request(conn, desk, made, writers)
    return page.question(
        desk,
        file,
        STEP,
        _("decide whether {count} people are told", count=made.people),
        [
            _("Nothing has been sent. This is what would be sent, and to whom:"),
            *_left_lines(left),
            *reach_lines(made, _reach(desk, file), desk.rules.letter),
            *letter_lines(notifying.text_of(desk, file)),
            _(
                "Your decision is bound to these words and this list: SHA-256 {sha}",
                sha=made.sha256,
            ),
            _("People need not be told where measures avoid the harm; authorities are anyway."),
        ],
        choices=[TELL, DO_NOT_TELL],
        form=form(),
        never=writers,
    )


def take(desk: Desk, number: str, given: Given) -> StepRecord:
    """Take the decision.

    Raises:
        AskAgain: nobody answered, it has no reasons, the list was not looked at, or words or list
            changed since it was asked.
    """
    file = desk.file(number)
    writers = sorted(who_answered(file.entries, Kind.IMPACT))
    who = answer.person(desk, file, STEP, given, writers)
    values = answer.read(desk, file, STEP, given, form())
    if not values.says(REASON):
        answer.refuse(desk, file, STEP, given, _("the reasons say nothing"), values)
    try:
        made = notifying.plan(desk, file)
    except ControlFailed as error:
        answer.refuse(desk, file, STEP, given, _("{words}", words=error.message), values)
    tell = given.option == TELL
    if tell and _many_unusable(desk, file, made) and not values.ticked(LOOKED):
        cause = _("too many people have no usable address: look at the list, and say so")
        answer.refuse(desk, file, STEP, given, cause, values)
    with desk.state.connect() as conn:
        asked = registry.request_of(conn, *_run(desk), notifying.APPROVAL, number)
    if asked is None or asked.sha256 != made.sha256:
        answer.refuse(desk, file, STEP, given, _("words or list changed: look again"), values)
    before = last_of(file.entries, Kind.DECIDED)
    if before is not None and decided_on(file, made) and before.data["request"] != asked.id:
        answer.refuse(desk, file, STEP, given, _("it was decided elsewhere meanwhile"), values)
    may = team_of(desk, file, STEP, writers).people
    with desk.state.begin() as conn:
        decided = registry.decide(
            conn,
            asked,
            decision=APPROVE if tell else REJECT,
            reason=values.text(REASON),
            decided_by=who,
            decided_at=given.at,
            may_decide=may,
        )
    if isinstance(decided, Refusal):
        cause = _("it was not accepted: {cause}", cause=str(decided.cause))
        answer.refuse(desk, file, STEP, given, cause, values)
    words = (
        _(
            "{count} affected people are told. {reason}",
            count=made.people,
            reason=values.text(REASON),
        )
        if tell
        else _("Affected people are not told. {reason}", reason=values.text(REASON))
    )
    data = {"tell": tell, "sha256": made.sha256, "bound": made.bound, "request": asked.id}
    data |= {"people": made.people}
    return answer.done(desk, file, STEP, Kind.DECIDED, words, by=who, given=given, data=data)


def decided_on(file: File, made: NoticePlan) -> bool:
    """Whether a decision stands for just these words and people."""
    found = last_of(file.entries, Kind.DECIDED)
    return found is not None and found.data["sha256"] == made.sha256


def _left_lines(left: Sequence[str]) -> list[Message]:
    if not left:
        return []
    names = listed([verbatim(one) for one in left])
    return [
        _(
            "NOT ON THE LIST: people of {databases}, in which nobody could read. A decision of its "
            "own is asked for once they are found.",
            databases=names,
        )
    ]


def _reach(desk: Desk, file: File) -> Reach | None:
    """How many can be reached; nobody is looked up in a drill."""
    if desk.scenario is not None:
        return None
    with desk.state.connect() as conn:
        return AddressBook(desk).reach(conn, file.incident.id)


def _many_unusable(desk: Desk, file: File, made: NoticePlan) -> bool:
    reach = _reach(desk, file)
    if reach is None or not made.people:
        return False
    return reach.unusable > desk.rules.letter.unusable_at_most * made.people


def _run(desk: Desk) -> tuple[str, str]:
    return desk.run.dag_id, desk.run.run_id
