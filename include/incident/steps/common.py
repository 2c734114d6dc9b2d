"""What all human steps of an incident have in common: the page, who answers, what does not count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from include.approvals.form import Entry as Entered
from include.approvals.form import Field, read_form, refilled
from include.approvals.question import (
    LANGUAGES,
    AskAgain,
    Question,
    harmless,
    in_both,
    markdown_table,
    names,
)
from include.approvals.reasons import says_something
from include.evidence.model import Outcome, StepRecord
from include.incident import timeline
from include.incident.clock_words import clock_rows
from include.incident.desk import Desk, File, file_of
from include.incident.names import Kind
from include.incident.standing import clocks_of
from include.incident.team import Team, team_of
from include.messages import Message, _, listed
from include.policy.incident import HumanStep
from include.reports.i18n import Translator
from include.services.errors import ServiceError

MOST_NAMES = 10  # of those who may answer; the others are counted
LONGEST = 2_000  # characters of a text


@dataclass(frozen=True)
class Given:
    """What a person answered.

    Attributes:
        option: the chosen one; empty where nobody answered in time.
        user: id of the person; None where nobody answered.
        name: of the person, which some auth managers keep apart from the id.
        at: when.
        entered: as it came, by field; `read` makes something of it.
    """

    option: str
    user: str | None
    name: str | None
    at: datetime
    entered: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Values:
    """What was entered, as the fields have it.

    Attributes:
        found: by field; nothing that was left empty.
    """

    found: Mapping[str, Entered]

    def text(self, name: str) -> str:
        """What was entered, value-free; empty where nothing was."""
        return str(self.found.get(name, ""))

    def ticked(self, name: str) -> bool:
        """Whether a box was ticked."""
        return self.found.get(name) is True

    def says(self, name: str) -> bool:
        """Whether a field says something in words."""
        return says_something(self.text(name))


def led(desk: Desk, number: str) -> File | None:
    """The incident, None where its steps are not to be done: a duplicate, or cancelled."""
    found = desk.file(number)
    return found if found.incident.is_led else None


def question(
    desk: Desk,
    file: File,
    step: HumanStep,
    title: Message,
    lines: Sequence[Message],
    *,
    choices: Sequence[str],
    form: Sequence[Field] = (),
    tables: Sequence[tuple[Sequence[Message], Sequence[Sequence[Message]]]] = (),
    never: Iterable[str] = (),
) -> Question:
    """Make the page of a human step: what to do, by when what is due, who may answer.

    Args:
        desk: of the incident.
        file: the incident.
        step: which one.
        title: what is asked, in a line.
        lines: what the person has to know and do.
        choices: what may be answered; the first one lets the run go on.
        form: what else is entered; what was entered in an answer that did not count is there.
        tables: heads and rows.
        never: user ids of people whose own work it is about.

    Raises:
        ServiceError: nobody is left who may answer.
    """
    team = team_of(desk, file, step, never)
    if not team.people:
        raise ServiceError(
            f"Nobody may do the step {step} of {file.incident.number}.",
            "Assign somebody: workflow update_incident, action `assign`.",
        )
    number = file.incident.number
    drill = [_("DRILL: nothing leaves, nobody is told, nothing is held.")] if desk.scenario else []
    shown = [*drill, *_refused(file, step), *_silent(team), *lines, *_who(team)]
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, desk.zone.key)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {words.text(one)}" for one in shown))
        for head, rows in [*tables, clock_rows(clocks_of(desk, file))]:
            if rows:
                parts.append(
                    markdown_table(
                        [words.text(one) for one in head],
                        [[harmless(words.text(cell)) for cell in row] for row in rows],
                    )
                )
    subject = in_both(_("{number}: {title}", number=number, title=title))
    kept = _kept(file, step)
    return Question(
        subject,
        "\n\n".join(parts) + "\n",
        list(team.people),
        form=refilled(form, kept),
        choices=tuple(choices),
    )


def person(desk: Desk, file: File, step: HumanStep, given: Given, never: Iterable[str] = ()) -> str:
    """Who answered, if that person may.

    Raises:
        AskAgain: nobody answered, or somebody who is not of the team any more; it is on the
            timeline, and others are asked.
    """
    if not given.user or not given.option:
        _keep(
            desk, file, Kind.UNANSWERED, step, _("Nobody answered {step} in time.", step=step), {}
        )
        raise AskAgain("Nobody answered in time.")
    team = team_of(desk, file, step, never)
    who = next((one for one in (given.user, given.name) if one and team.may(one)), None)
    if who is None:
        refuse(desk, file, step, given, _("who answered is not of the team for this step"))
    return who


def read(desk: Desk, file: File, step: HumanStep, given: Given, form: Sequence[Field]) -> Values:
    """Read what was entered.

    Args:
        desk: of the incident.
        file: the incident.
        step: which one.
        given: the answer.
        form: with which it was asked.

    Raises:
        AskAgain: a field is missing or wrong; it is on the timeline, and asked again.
    """
    found = read_form(form, given.entered, desk.zone)
    if found.problems:
        refuse(desk, file, step, given, listed(found.problems), Values(found.values))
    return Values(found.values)


def refuse(
    desk: Desk,
    file: File,
    step: HumanStep,
    given: Given,
    cause: Message,
    values: Values | None = None,
) -> NoReturn:
    """Enter an answer that does not count, and ask again with what was entered.

    Args:
        desk: of the incident.
        file: the incident.
        step: which one.
        given: the answer.
        cause: why it does not count.
        values: what is shown again.

    Raises:
        AskAgain: always.
    """
    kept = {name: _json(one) for name, one in (values.found if values else {}).items()}
    words = _("The answer to {step} did not count: {cause}", step=step, cause=cause)
    data = {"cause": cause.model_dump(mode="json"), "given": kept, "option": given.option}
    _keep(desk, file, Kind.REFUSED, step, words, data, by=given.user or step)
    raise AskAgain(Translator("en", desk.zone.key).text(cause))


def _json(value: Entered) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def done(
    desk: Desk,
    file: File,
    step: HumanStep,
    kind: Kind,
    words: Message,
    *,
    by: str,
    given: Given,
    data: Mapping[str, Any] | None = None,
    happened_at: datetime | None = None,
    part: str = "",
) -> StepRecord:
    """Enter an answer that counts, once; the step's record.

    Args:
        desk: of the incident.
        file: the incident.
        step: which one.
        kind: of the entry.
        words: what was answered.
        by: who answered.
        given: the answer.
        data: of the entry.
        happened_at: when what is told happened; when it was answered where nothing is said.
        part: of the step, where there are several.
    """
    with desk.state.begin() as conn:
        entry = timeline.append(
            conn,
            file.incident.id,
            kind,
            words,
            by=by,
            clock=desk.clock,
            happened_at=happened_at or given.at,
            data={"step": step, "option": given.option, **(data or {})},
            once=f"{step}:{part}:{given.at.isoformat()}",
        )
    kept = {"entry": entry.place, "by": by, "option": given.option}
    return StepRecord(step=step, part=part, outcome=Outcome.PASS, data=kept)


def moment(
    desk: Desk,
    file: File,
    step: HumanStep,
    given: Given,
    values: Values,
    name: str,
    after: datetime | None = None,
) -> datetime:
    """A moment that was entered, that of the answer where nothing was.

    Args:
        desk: of the incident.
        file: the incident.
        step: which one.
        given: the answer.
        values: what was entered.
        name: of the field.
        after: before which it cannot have been; the beginning of the leak, else awareness, where
            nothing is said.

    Raises:
        AskAgain: it is yet to come, or lies too early.
    """
    entered = values.found.get(name)
    found = entered if isinstance(entered, datetime) else given.at
    if found > desk.clock.now():
        refuse(desk, file, step, given, _("{field} is yet to come", field=name), values)
    first = after or file.incident.began_at or file.incident.aware_at
    if found < first:
        cause = _("{field} lies before {first}", field=name, first=first)
        refuse(desk, file, step, given, cause, values)
    return found


def again(desk: Desk, number: str) -> File:
    """The incident as it is now, after something was entered."""
    with desk.state.connect() as conn:
        return file_of(conn, number)


def _keep(
    desk: Desk,
    file: File,
    kind: Kind,
    step: str,
    words: Message,
    data: Mapping[str, Any],
    by: str | None = None,
) -> None:
    with desk.state.begin() as conn:
        timeline.append(
            conn, file.incident.id, kind, words, by=by or step, clock=desk.clock,
            data={"step": step, **data},
        )  # fmt: skip


def _last_refused(file: File, step: str) -> timeline.Entry | None:
    """The refusal after which nothing of the step counted."""
    mine = [one for one in file.entries if one.data.get("step") == step]
    answers = [one for one in mine if one.kind is not Kind.UNANSWERED]
    return answers[-1] if answers and answers[-1].kind is Kind.REFUSED else None


def _refused(file: File, step: str) -> list[Message]:
    found = _last_refused(file, step)
    if found is None:
        return []
    cause = Message.model_validate(found.data["cause"])
    return [_("The last answer, by {who}, did not count: {cause}.", who=found.by, cause=cause)]


def _kept(file: File, step: str) -> dict[str, Entered]:
    found = _last_refused(file, step)
    given = found.data.get("given", {}) if found else {}
    return {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}


def _silent(team: Team) -> list[Message]:
    if not team.silent:
        return []
    return [
        _(
            "Nobody has answered {count} times: deputies and management are asked too.",
            count=team.silent,
        )
    ]


def _who(team: Team) -> list[Message]:
    shown, more = names(team.people[:MOST_NAMES]), len(team.people[MOST_NAMES:])
    found = [
        _("Only {people} and {more} more may answer.", people=shown, more=more)
        if more
        else _("Only {people} may answer.", people=shown)
    ]
    if team.left_out:
        left = names(team.left_out[:MOST_NAMES])
        found.append(
            _("Not asked, since it is about them or they were taken off: {out}.", out=left)
        )
    return [*found, _("Write no customer's data into any field.")]
