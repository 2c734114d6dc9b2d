"""What a document still lacks before it may go out."""

from __future__ import annotations

from include.documents.model import Document, Form
from include.documents.words import blank
from include.messages import Message


def missing(document: Document) -> list[Message]:
    """Labels of the required fields that say nothing, in reading order.

    A value says nothing when it is None, empty, or has neither letter nor digit in one of the
    languages: white space, a dash, or the ``…`` that is left of a blotted number.
    """
    return [
        entry.label
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
        if entry.required and blank(entry.value)
    ]
