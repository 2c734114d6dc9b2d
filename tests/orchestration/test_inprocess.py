"""Preparing and making a run in this process reads its own workflow only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from include.services.errors import UsageError

DAG_FILE = """
from airflow.sdk import DAG

with DAG("wanted", schedule=None):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workflow, and beside it one that cannot be read."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "wanted.py").write_text(DAG_FILE)
    (tmp_path / "broken.py").write_text("import airflow.nothing  # a DAG no more\n")
    return tmp_path


def test_what_is_wrong_with_another_workflow_stops_nobody(folder: Path) -> None:
    """Of the broken one it is said; and a name that no file has is looked for in all of them."""
    from include.orchestration.inprocess import prepare

    assert prepare(folder, "wanted", {}, []).dag.dag_id == "wanted"
    with pytest.raises(UsageError, match=r"broken\.py cannot be read"):
        prepare(folder, "broken", {}, [])
    with pytest.raises(UsageError, match=r"broken\.py cannot be read"):
        prepare(folder, "elsewhere", {}, [])
    (folder / "broken.py").unlink()
    with pytest.raises(UsageError, match="There is no workflow elsewhere"):
        prepare(folder, "elsewhere", {}, [])


def test_airflow_reads_the_runs_own_file_and_later_all_again(folder: Path) -> None:
    """A run lets Airflow read the whole folder anew; it is shown the one file of the run."""
    from airflow.dag_processing.dagbag import DagBag

    from include.orchestration.inprocess import only_file

    before = dict(os.environ)
    with only_file(str(folder / "wanted.py")):
        bag = DagBag(str(folder))
        assert list(bag.dags) == ["wanted"]
        assert not bag.import_errors
    assert dict(os.environ) == before
    assert DagBag(str(folder)).import_errors
