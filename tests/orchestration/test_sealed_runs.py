"""A run that is sealed does nothing any more, and a pack without audits is calm."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ControlFailed
from tests.sampling.rig import DAG, Rig, new_rig

pytestmark = pytest.mark.airflow


@pytest.fixture
def rig(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A shop whose state database is its own."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("sealed")) as made:
        yield made


def test_nothing_is_drawn_in_a_run_that_is_sealed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody clears its tasks: what they did would stand in no evidence."""
    from include.orchestration import run, sampling

    rig.committed()
    rig.enter()
    place: Any = SimpleNamespace(pack=rig.pack, state=rig.engine)
    for module in (sampling, run):
        monkeypatch.setattr(module, "run_key", lambda: (DAG, "r1"))
    rig.seal()
    with pytest.raises(ControlFailed, match="This run is sealed"):
        sampling.desk_of(place)


def test_a_pack_without_audits_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step fails, so that nobody who has no audit.yaml is woken by red runs."""
    from include.orchestration import audit_conclusion, sampling
    from include.sampling import conclusion_report, report

    place: Any = SimpleNamespace(pack=SimpleNamespace(audit=None))
    kept: list[StepRecord] = []

    def step(_name: str, _part: str, _title: Any, work: Any, _clause: str) -> dict[str, Any]:
        kept.append(work(place))
        return {}

    for module in (sampling, audit_conclusion):
        monkeypatch.setattr(module, "step", step)
    assert sampling.begin(None) == []
    sampling.commit()
    sampling.draw()
    assert audit_conclusion.look(None) == []
    assert [one.outcome for one in kept] == [Outcome.PASS] * 4
    for nothing in (
        report.nothing_to_audit(kept),
        conclusion_report.nothing_to_audit(kept, roles={}, findings=[]),
    ):
        assert nothing.outcome is Outcome.PASS
        assert nothing.metrics == []
