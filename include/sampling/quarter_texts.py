"""Names of quarters and of sets of workpapers, as people read them.

Keys, file names and the state database contain the id ``2026Q3``. Texts for people contain "third
quarter of 2026".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from include.messages import Message, _, verbatim

_QUARTER = re.compile(r"(?P<year>\d{4})Q(?P<number>[1-4])", re.ASCII)
_WORKPAPERS = re.compile(r"(?P<quarter>\d{4}Q[1-4])-(?P<stage>\d+)-(?P<draw>[0-9a-f]+)", re.ASCII)
_NAMES: Mapping[str, Callable[[str], Message]] = {  # years are texts, not figures such as 2,026
    "1": lambda year: _("first quarter of {year}", year=year),
    "2": lambda year: _("second quarter of {year}", year=year),
    "3": lambda year: _("third quarter of {year}", year=year),
    "4": lambda year: _("fourth quarter of {year}", year=year),
}


def quarter_text(audit: str) -> Message:
    """Return "third quarter of 2026" for ``2026Q3``; return any other text unchanged.

    The Chinese text starts with a digit and ends with a Chinese character. A Chinese message
    therefore needs a space before this text, and no space after it.
    """
    match = _QUARTER.fullmatch(audit)
    return _NAMES[match["number"]](match["year"]) if match else verbatim(audit)


def workpapers_text(part: str) -> Message:
    """Return a readable name of a set of workpapers, with its quarter, stage and draw.

    Args:
        part: name of the set of workpapers, such as ``2026Q3-1-0f3a9c``. Any other text is returned
            unchanged.
    """
    match = _WORKPAPERS.fullmatch(part)
    if match is None:
        return verbatim(part)
    return _(
        "workpapers of the {quarter}, stage {stage}, draw {draw}",
        quarter=quarter_text(match["quarter"]),
        stage=match["stage"],
        draw=match["draw"],
    )
