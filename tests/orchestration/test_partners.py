"""`review_partners` and the standing of partners where a pack has none, or a run is sealed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.partners.rules import PARTNERS
from include.services.errors import UsageError
from include.workflow.run_context import context_of
from tests.support.contexts import pack_of

pytestmark = pytest.mark.airflow


def test_a_pack_without_partners_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step fails, and what was queued under an earlier pack is not sent any more."""
    from include.orchestration import partners

    place: Any = SimpleNamespace(pack=pack_of({}, {}))
    kept: list[StepRecord] = []

    def step(_name: str, _part: str, _title: Any, work: Any, _clause: str) -> dict[str, Any]:
        kept.append(work(place))
        return {}

    monkeypatch.setattr(partners, "step", step)
    partners.look()
    assert [one.outcome for one in kept] == [Outcome.PASS]


def test_nobody_is_allowed_where_no_partner_is_known() -> None:
    """A sharing that asks is told so, and does not go on."""
    place: Any = SimpleNamespace(pack=pack_of({}, {}))
    with pytest.raises(UsageError, match=r"has no partners\.yaml"):
        context_of(PARTNERS, place)
