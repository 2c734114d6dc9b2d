"""The letter to affected people, as mail and as a document for those who are told on paper.

Types, cause, possible harm, remedy, what people can do themselves, contact: PIPL (2021-11-01) 57;
Network Data Security Management Regulations (2025-01-01) 11. A part that nobody wrote blocks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from include.documents.model import Document, Form, Section
from include.documents.model import Entry as FormEntry
from include.incident.entries import ImpactAssessed
from include.incident.incident_run import IncidentRecord, IncidentRun, drill_mark
from include.incident.names import Kind
from include.incident.rules import IncidentRules
from include.incident.scope_words import types_of
from include.incident.timeline import Entry, last_of
from include.messages import Message, _, listed
from include.notify.texts import LetterPart, LetterText
from include.policy.rules import in_languages
from include.reports.model import Paragraph

PARTS: dict[str, Message] = {
    "cause": _("What happened"),
    "harm": _("What may come of it"),
    "measures": _("What we have done"),
    "self_help": _("What you can do"),
}


def texts_of(entries: Sequence[Entry]) -> dict[str, Message | None]:
    """The words that people entered on the impact, by field; None where nobody did.

    Args:
        entries: of the incident, oldest first.
    """
    found = last_of(entries, Kind.IMPACT)
    texts = found.as_(ImpactAssessed).texts if found else {}
    return {
        name: in_languages({"en": texts[f"{name}_en"], "zh-CN": texts[f"{name}_zh"]})
        if texts.get(f"{name}_en") and texts.get(f"{name}_zh")
        else None
        for name in (*PARTS, "next_steps")
    }


def missing(entries: Sequence[Entry], categories: Iterable[str]) -> list[Message]:
    """What the letter lacks, by name; while it lacks anything it is not sent.

    Args:
        entries: of the incident, oldest first.
        categories: data categories that are affected.
    """
    texts = texts_of(entries)
    lacking = [title for name, title in PARTS.items() if texts[name] is None]
    return ([] if types_of(categories) else [_("Types of information")]) + lacking


def letter_text(
    rules: IncidentRules, entries: Sequence[Entry], categories: Iterable[str]
) -> LetterText:
    """The letter as it would be sent.

    Args:
        rules: incident.yaml.
        entries: of the incident, oldest first.
        categories: data categories that are affected.

    Raises:
        ValueError: a part is missing; `missing` names it.
    """
    types = types_of(categories)
    if lacking := missing(entries, categories):
        raise ValueError(f"the letter lacks {', '.join(field.text for field in lacking)}")
    texts = texts_of(entries)
    parts = [LetterPart(title=_("Which information of yours may be affected"), words=listed(types))]
    parts += [
        LetterPart(title=title, words=words)
        for name, title in PARTS.items()
        if (words := texts[name]) is not None
    ]
    letter = rules.letter
    return LetterText(
        heading=in_languages(letter.heading),
        opening=in_languages(letter.opening),
        parts=tuple(parts),
        closing=in_languages(letter.closing),
        contact=in_languages(letter.contact),
    )


def letter_document(
    run: IncidentRun, record: IncidentRecord, categories: Iterable[str]
) -> Document:
    """The letter as a document; what is not written yet is blank and blocks it.

    Args:
        run: the run or command.
        record: the incident.
        categories: data categories that are affected.
    """
    letter, texts = run.rules.letter, texts_of(record.entries)
    written = last_of(record.entries, Kind.IMPACT)
    types = tuple(types_of(categories)) or None
    said = [FormEntry(label=_("Which information of yours may be affected"), value=types)]
    said += [FormEntry(label=title, value=texts[name]) for name, title in PARTS.items()]
    said.append(FormEntry(label=_("Whom you may ask"), value=in_languages(letter.contact)))
    return Document(
        title=in_languages(letter.heading),
        dated=written.recorded_at if written else record.incident.opened_at,
        reference=record.incident.number,
        addressee=_("Dear customer"),
        sender=in_languages(run.rules.company),
        sections=(
            Section(
                blocks=(
                    Paragraph(text=in_languages(letter.opening)),
                    Form(entries=tuple(said)),
                    Paragraph(text=in_languages(letter.closing)),
                )
            ),
        ),
        marked=drill_mark(run),
    )
