"""Skip the PDF files of reports and documents, because they take most of the time of a seal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def without_pdf() -> Iterator[None]:
    """Make no PDF files in this process during the block. Reports state that they were left out."""
    from include.documents import render as documents
    from include.reports import render as reports

    def reason() -> str:
        return "Left out, to save time."

    with (
        patch.object(documents, "pdf_unavailable_reason", reason),
        patch.object(reports, "pdf_unavailable_reason", reason),
    ):
        yield
