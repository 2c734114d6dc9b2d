"""Impact: cause, possible harm, measures, what people can do - the words of reports and notices."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.incident.entries import ImpactAssessed
from include.incident.incident_run import IncidentRecord, IncidentRun, told
from include.incident.names import Kind
from include.incident.rules import HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given
from include.incident.steps.page import human_task
from include.incident.timeline import last_of
from include.messages import Message, _, listed

STEP: HumanStep = "impact"
ASSESSED = "Assessed"
TEXTS: dict[str, Message] = {
    "cause": _("Preliminary cause"),
    "harm": _("Possible harm to people"),
    "measures": _("Measures taken and their effect"),
    "self_help": _("What people can do themselves"),
    "next_steps": _("Trend, leads and next steps"),
}
"""What every report and notice needs: PIPL (2021-11-01) 57; National Incident Reporting Measures
(2025-11-01) 7. In both languages, since people are told in both."""
LANGUAGES = {"zh": _("in Chinese"), "en": _("in English")}


def form(before: Mapping[str, str] | None = None) -> list[Field]:
    """The texts as fields, each in both languages.

    Args:
        before: what was written before, where it is written anew.
    """
    texts = before or {}
    return [
        Field(
            name=f"{name}_{language}",
            title=_("{what} {language}", what=title, language=words),
            kind="long_text",
            required=True,
            longest=page.LONGEST,
            value=texts.get(f"{name}_{language}"),
        )
        for name, title in TEXTS.items()
        for language, words in LANGUAGES.items()
    ]


def ask(run: IncidentRun, record: IncidentRecord) -> Question:
    """Write cause, possible harm, measures and what people can do, in both languages."""
    written = last_of(record.entries, Kind.IMPACT)
    return page.question(
        run,
        record,
        STEP,
        _("write what happened, what may come of it, and what people can do"),
        _lines(run, record),
        choices=[ASSESSED],
        form=form(written.as_(ImpactAssessed).texts if written else None),
        content=content(run, record),
    )


def _lines(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    return [
        _("What happened: {what}", what=told(run, record)),
        _("These words go into the authority's report and into notices to people, as written."),
        _("Whoever writes them does not decide whether people are told."),
    ]


def content(run: IncidentRun, record: IncidentRecord) -> str:
    """Return the digest of what an answer is about: the incident, and the words so far."""
    written = last_of(record.entries, Kind.IMPACT)
    facts = [written.place if written else None]
    return page.content_of(record, STEP, _lines(run, record), form=form(), facts=facts)


def take(run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Take the words.

    Raises:
        AskAgain: nobody answered, a field says nothing, or the form was about something else.
    """
    who = answer.person(run, record, STEP, given)
    fields = form()
    values = answer.read(run, record, STEP, given, fields)
    if silent := [one.title for one in fields if not values.says(one.name)]:
        cause = _("these fields say nothing: {fields}", fields=listed(silent))
        answer.refuse(run, record, STEP, given, cause, values)
    data = {"texts": {one.name: values.text(one.name) for one in fields}}
    words = _("The impact was assessed.")
    return answer.done(
        run, record, STEP, Kind.IMPACT, words, by=who, given=given, values=values,
        content=partial(content, run), data=data,
    )  # fmt: skip


IMPACT = human_task(STEP, _("The impact assessment"), ask, take, (ASSESSED,))
