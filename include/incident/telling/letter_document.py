"""The letter to affected people as a document: for those who are told on paper, or by a notice.

It says what the mails say: PIPL (2021-11-01) 57; Network Data Security Management Regulations
(2025-01-01) 11.
"""

from __future__ import annotations

from collections.abc import Iterable

from include.documents.model import Document, Entry, Form, Section
from include.incident.incident_run import IncidentRecord, IncidentRun, marked
from include.incident.names import Kind
from include.incident.scope_words import types_of
from include.incident.telling.letter import PARTS, texts_of
from include.incident.timeline import last_of
from include.messages import _
from include.policy.rules import in_languages
from include.reports.model import Paragraph


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
    said = [Entry(label=_("Which information of yours may be affected"), value=types)]
    said += [Entry(label=title, value=texts[name]) for name, title in PARTS.items()]
    said.append(Entry(label=_("Whom you may ask"), value=in_languages(letter.contact)))
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
        marked=marked(run),
    )
