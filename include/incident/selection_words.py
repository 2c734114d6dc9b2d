"""What people read of what was entered as affected; no value of a customer."""

from __future__ import annotations

from collections.abc import Iterable

from include.approvals.reasons import BLOTTED, names_a_person
from include.incident.selection import Selection
from include.messages import Message, _, listed

MOST_NAMES = 20  # of accounts or departments; the others are counted


def selection_line(chosen: Selection) -> Message:
    """What was entered, in a line.

    Args:
        chosen: `selection.checked`.
    """
    said = [_("systems: {names}", names=_names(chosen.databases))]
    if chosen.collections:
        said.append(_("tables: {names}", names=_names(chosen.collections)))
    if chosen.since is not None:
        said.append(_("from {moment}", moment=chosen.since))
    if chosen.until is not None:
        said.append(_("before {moment}", moment=chosen.until))
    if chosen.departments:
        said.append(_("departments: {names}", names=_names(chosen.departments)))
    if chosen.accounts:
        said.append(_("opened by the accounts: {names}", names=_names(chosen.accounts)))
    if chosen.partner is not None:
        said.append(_("given to the partner: {names}", names=_names([chosen.partner])))
    if chosen.keys:
        said.append(_("{count} listed keys", count=len(chosen.keys)))
    return _("Entered as affected: {what}", what=listed(said))


def _names(found: Iterable[str]) -> str:
    names = list(found)
    shown = ", ".join(BLOTTED if names_a_person(one) else one for one in names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{shown} +{more}" if more > 0 else shown
