"""Files to fill in: the header that an upload needs, as Excel opens it."""

from __future__ import annotations

import csv
import io

from include.training.uploads.columns import COLUMNS, Kind


def template(kind: Kind, *, chinese: bool = False) -> bytes:
    """Return a CSV file with nothing but its header.

    Args:
        kind: what the file is to hold.
        chinese: whether its columns are named in Chinese.
    """
    text = io.StringIO()
    csv.writer(text).writerow([one.chinese if chinese else one.name for one in COLUMNS[kind]])
    return text.getvalue().encode("utf-8-sig")  # without the mark Excel takes it for another one
