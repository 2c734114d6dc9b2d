"""Create the text of the notice to affected people, as a mail and as a printable document.

The notice contains types of information, cause, possible harm, remedy, self-help and contact: PIPL
(2021-11-01), article 57; Network Data Security Management Regulations (2025-01-01), article 11. It
cannot be sent while one of these texts is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from include.documents.model import Document, Form, Section
from include.documents.model import Entry as FormEntry
from include.incident.entries import ImpactAssessed
from include.incident.incident_ids import Kind
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    drill_mark,
    sender_address,
)
from include.incident.rules import IncidentRules
from include.incident.scope_texts import category_names
from include.incident.timeline import Entry, last_of
from include.messages import Message, _, listed
from include.notify.texts import NoticePart, NoticeText
from include.policy.rules import translated_message
from include.reports.model import Paragraph

PARTS: dict[str, Message] = {
    "cause": _("What happened"),
    "harm": _("What this may mean for you"),
    "measures": _("What we have done"),
    "self_help": _("What you can do"),
}


def impact_texts(entries: Sequence[Entry]) -> dict[str, Message | None]:
    """Return the newest texts about the impact of an incident, by topic, such as ``cause``.

    A value is None if its text is missing in at least one of the two languages.

    Args:
        entries: entries of the incident, oldest first.
    """
    entry = last_of(entries, Kind.IMPACT)
    texts = entry.as_(ImpactAssessed).texts if entry else {}
    return {
        name: translated_message({"en": texts[f"{name}_en"], "zh-CN": texts[f"{name}_zh"]})
        if texts.get(f"{name}_en") and texts.get(f"{name}_zh")
        else None
        for name in (*PARTS, "next_steps")
    }


def missing_parts(entries: Sequence[Entry], categories: Iterable[str]) -> list[Message]:
    """Return the titles of the required sections for which the notice has no text yet.

    The notice cannot be sent without these sections.

    Args:
        entries: entries of the incident, oldest first.
        categories: affected data categories.
    """
    texts = impact_texts(entries)
    titles = [title for name, title in PARTS.items() if texts[name] is None]
    return ([] if category_names(categories) else [_("Types of information")]) + titles


def create_notice_text(
    rules: IncidentRules, entries: Sequence[Entry], categories: Iterable[str]
) -> NoticeText:
    """Create the notice to affected people as a mail, from the current impact texts.

    Args:
        rules: content of incident.yaml.
        entries: entries of the incident, oldest first.
        categories: affected data categories.

    Raises:
        ValueError: a required section has no text; see `missing_parts`.
    """
    types = category_names(categories)
    if missing := missing_parts(entries, categories):
        raise ValueError(f"the notice lacks {', '.join(field.text for field in missing)}")
    texts = impact_texts(entries)
    parts = [NoticePart(title=_("Your information that may be affected"), words=listed(types))]
    parts += [
        NoticePart(title=title, words=words)
        for name, title in PARTS.items()
        if (words := texts[name]) is not None
    ]
    company = rules.letter
    return NoticeText(
        heading=translated_message(company.heading),
        opening=translated_message(company.opening),
        parts=tuple(parts),
        closing=translated_message(company.closing),
        contact=translated_message(company.contact),
    )


def create_notice_document(
    run: IncidentRun, record: IncidentRecord, categories: Iterable[str]
) -> Document:
    """Create the notice to affected people as a printable document.

    If the text of a required section was not entered, the section has an empty field.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        categories: affected data categories.
    """
    company, texts = run.rules.letter, impact_texts(record.entries)
    written = last_of(record.entries, Kind.IMPACT)
    types = tuple(category_names(categories)) or None
    entries = [FormEntry(label=_("Your information that may be affected"), value=types)]
    entries += [FormEntry(label=title, value=texts[name]) for name, title in PARTS.items()]
    entries.append(
        FormEntry(label=_("Contact for questions"), value=translated_message(company.contact))
    )
    return Document(
        title=translated_message(company.heading),
        dated=written.recorded_at if written else record.incident.opened_at,
        reference=record.incident.number,
        addressee=_("Dear customer"),
        sender=translated_message(run.rules.company),
        sender_address=sender_address(run),
        sections=(
            Section(
                blocks=(
                    Paragraph(text=translated_message(company.opening)),
                    Form(entries=tuple(entries)),
                    Paragraph(text=translated_message(company.closing)),
                )
            ),
        ),
        warning=drill_mark(run),
    )
