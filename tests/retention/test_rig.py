"""The rig itself: a run that nothing disturbs does what its schedule says."""

from __future__ import annotations

import pytest

from tests.retention.kills import execution, until
from tests.retention.rig import YOUNG, Rig, fill


def test_a_quiet_run_takes_what_is_over_and_leaves_the_rest(rig: Rig) -> None:
    """Every table of the family, and a second run finds nothing more to do."""
    fill(rig)
    _planned, executed, verified = rig.run()
    assert executed.data["done"] == {
        "parcel": 1, "scan": 1, "detail": 1, "event": 2, "remark": 1, "node": 3, "ring_a": 1,
        "ring_b": 1, "person": 1,
    }  # fmt: skip
    assert executed.data["partitions"] == {"event": 1}
    assert verified.data["unexplained"] == 0
    assert verified.findings == []
    left = {table: len(rig.keys_in(table)) for table in ("parcel", "scan", "detail", "tag", "note")}
    assert left == {"parcel": 2, "scan": 2, "detail": 1, "tag": 1, "note": 1}
    assert rig.run("r2")[1].data["done"] == {}


def test_the_first_run_may_find_nothing(rig: Rig) -> None:
    """Nothing was ever erased, so no backup can still hold what was."""
    rig.insert("node", id=1, at=YOUNG)
    assert rig.run()[-1].data["copies"] == []


@pytest.mark.fault
def test_a_run_in_another_process_waits_where_it_is_told(rig: Rig) -> None:
    """It reaches the stage, and killed there leaves its lock to nobody."""
    fill(rig)
    planned = rig.plan()
    with execution(rig, planned, stage="changed", number=2) as child:
        child.kill()
        assert child.wait(10) == -9
    until(lambda: not rig.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
    assert rig.execute(planned).data["done"]["scan"] == 1
