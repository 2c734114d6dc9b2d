"""An in-process run reads only the DAG file of its workflow."""

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
    """Return a DAG folder with a valid DAG file and a file that cannot be imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "wanted.py").write_text(DAG_FILE)
    (tmp_path / "broken.py").write_text("import airflow.nothing  # an unreadable DAG file\n")
    return tmp_path


def test_prepare_returns_dag_of_its_own_file_even_if_another_dag_file_has_errors(
    folder: Path,
) -> None:
    """If no file has the name of the DAG id, all files are searched."""
    from include.orchestration.in_process_run import prepare

    assert prepare(folder, "wanted", {}, []).dag.dag_id == "wanted"
    with pytest.raises(UsageError, match=r"broken\.py cannot be read"):
        prepare(folder, "broken", {}, [])
    with pytest.raises(UsageError, match=r"broken\.py cannot be read"):
        prepare(folder, "elsewhere", {}, [])
    (folder / "broken.py").unlink()
    with pytest.raises(UsageError, match="There is no workflow elsewhere"):
        prepare(folder, "elsewhere", {}, [])


def test_dag_bag_contains_only_dags_of_the_given_file_inside_the_only_file_context(
    folder: Path,
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from include.orchestration.in_process_run import only_file

    before = dict(os.environ)
    with only_file(str(folder / "wanted.py")):
        bag = DagBag(str(folder))
        assert list(bag.dags) == ["wanted"]
        assert not bag.import_errors
    assert dict(os.environ) == before
    assert DagBag(str(folder)).import_errors
