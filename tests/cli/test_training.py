"""The ``training`` commands: uploads of files, and waivers of courses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.cli import app
from include.cli import training as command
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.clock import FixedClock
from include.state.connect import engine
from include.training.rules import TRAINING, TrainingSource
from include.training.uploads.reading import COLUMNS, Kind
from tests.support.databases import temporary_database
from tests.training.uploads.support import COMPLETIONS, ROSTER, csv_file, read_rows

NOW = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)  # 07:30 on the second in Shanghai
WAIVE = ("waive", "E0007", "LAW", "--until", "2026-06-30")
WHY = ("--reason", "Works abroad [red]until[/red] summer", "--by", "li.na")


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Yield a state database that all tests of this module share."""
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Empty the state database, which commands use with a pack that reads uploads."""
    with shared.begin() as conn:
        conn.execute(text("TRUNCATE training_upload, training_waiver RESTART IDENTITY CASCADE"))
    pack = load_pack(SHIPPED)
    uploaded = {"people": TrainingSource(upload=True)}
    rules = pack.require(TRAINING).model_copy(update=uploaded)
    stub = SimpleNamespace(
        state=shared,
        clock=FixedClock(NOW),
        pack=pack.model_copy(update={"sections": {TRAINING.file: rules}}),
    )
    monkeypatch.setattr(command, "command_services", lambda: stub)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    return shared


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    """Write a roster file in the format of Excel and return its path."""
    file = tmp_path / "roster.csv"
    file.write_bytes(csv_file(ROSTER, encoding="GB18030"))
    return file


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a ``training`` command and return its exit code, stdout and stderr."""
    code = app._run(["training", *words])
    output = capsys.readouterr()
    return code, output.out, output.err


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _said = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    result = json.loads(out)
    assert isinstance(result, dict)
    return code, result


@pytest.mark.usefixtures("state")
def test_training_upload_stores_and_lists_a_roster(
    capsys: pytest.CaptureFixture[str], roster: Path
) -> None:
    """A second upload of the same file changes nothing, and the command prints that."""
    words = ("upload", "roster", str(roster), "--by", "chen")
    assert run(capsys, *words) == (
        0,
        "imported: roster, 2 lines (GB18030, comma), as upload 1\n",
        "",
    )
    assert run(capsys, *words)[1] == "unchanged: the same file is already in force, as upload 1\n"
    assert run_json(capsys, *words) == (
        0,
        {
            "upload": 1,
            "kind": "roster",
            "unchanged": True,
            "lines": 2,
            "added": 0,
            "mended": 0,
            "replaced": None,
        },
    )
    (listed,) = run_json(capsys, "uploads")[1]["uploads"]
    assert (listed["upload"], listed["uploaded_by"], listed["counts"]) == (1, "chen", True)
    code, out, _said = run(capsys, "uploads")
    assert code == 0
    assert "2026-03-02 07:30" in out
    assert listed["sha256"][:12] in out


@pytest.mark.usefixtures("state")
def test_training_upload_prints_changes_to_earlier_uploads(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, roster: Path
) -> None:
    """The output counts replaced and new lines.

    It warns if the pack does not read uploads of this kind.
    """
    run(capsys, "upload", "roster", str(roster), "--by", "chen")
    roster.write_bytes(csv_file(ROSTER[:1]))
    out = run(capsys, "upload", "roster", str(roster), "--by", "chen")[1]
    assert out == "imported: roster, 1 line (UTF-8, comma), as upload 2; replaces 2 lines\n"
    file = tmp_path / "completions.csv"
    failed = COMPLETIONS[0] | {"passed": "no"}
    for rows, message in (
        ([failed, failed], "2 lines (UTF-8, comma), as upload 3; new: 1"),
        (COMPLETIONS, "as upload 4; new: 1; not passed before: 1"),
    ):
        file.write_bytes(csv_file(rows))
        code, out, remark = run(capsys, "upload", "completions", str(file), "--by", "chen")
        assert code == 0
        assert out.endswith(f"{message}\n")
        assert "reads completions with a query" in remark


@pytest.mark.usefixtures("state")
def test_training_upload_of_file_with_faulty_lines_exits_with_2_and_stores_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, roster: Path
) -> None:
    """The error lists each fault without the names of people, and no line of the file is stored."""
    rows = [ROSTER[0] | {"joined_on": "2026-02-30"}, ROSTER[1] | {"access": "王芳"}]
    roster.write_bytes(csv_file(rows))
    words = ("upload", "roster", str(roster), "--by", "chen")
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: roster.csv has 2 faults, so nothing of it was stored:",
        "- line 2: joined_on (入职日期): 2026-02-30 is a date that does not exist",
        "- line 3: access (客户信息权限): is neither yes nor no",
    ]
    code, result = run_json(capsys, *words)
    assert code == 2
    assert result["error"].startswith(
        "roster.csv has 2 faults, so nothing of it was stored: - line"
    )
    assert run_json(capsys, "uploads")[1] == {"uploads": []}


@pytest.mark.usefixtures("state")
def test_training_upload_of_a_much_shorter_roster_requires_shrinks_option(
    capsys: pytest.CaptureFixture[str], roster: Path
) -> None:
    """With the option ``--shrinks`` the roster is stored."""
    rows = [ROSTER[1] | {"person": f"E{at}"} for at in range(5)]
    roster.write_bytes(csv_file(rows))
    words = ("upload", "roster", str(roster), "--by", "chen")
    assert run(capsys, *words)[0] == 0
    roster.write_bytes(csv_file(rows[:2]))
    code, _out, err = run(capsys, *words)
    assert code == 2
    assert "upload it with --shrinks" in err
    assert run(capsys, *words, "--shrinks")[0] == 0


@pytest.mark.usefixtures("state")
def test_training_upload_of_unreadable_file_exits_with_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The cases are missing files, other file types, an unknown kind and missing user ids."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    holder = os.open(pipe, os.O_RDWR)
    empty = tmp_path / "empty.csv"
    empty.touch()
    by = ("--by", "chen")
    for words, why in (
        (("roster", str(tmp_path / "none.csv"), *by), "cannot be read: No such file"),
        (("roster", str(tmp_path), *by), "cannot be read: Is a directory"),
        (("roster", str(pipe), *by), "is a pipe"),
        (("roster", str(empty), *by), "The file is empty."),
        (("people", str(empty), *by), "Use one of: roster, courses, completions."),
        (("roster", str(empty), "--by", " "), "--by has an empty value"),
        (("roster", str(empty)), "--by"),
    ):
        code, out, err = run(capsys, "upload", *words)
        assert (code, out) == (2, "")
        assert why in err
    os.close(holder)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("more", [(), ("--chinese",)])
def test_training_template_with_sample_rows_can_be_read_as_upload(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: Kind, more: tuple[str, ...]
) -> None:
    """The template has a byte order mark for Excel.

    The command does not overwrite an existing file.
    """
    file = tmp_path / "template.csv"
    words = ("template", str(kind), "--out", str(file), *more)
    assert run(capsys, *words) == (0, f"written: {file}\n", "")
    content = file.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    sample = csv_file(SAMPLES_OF[kind]).partition(b"\r\n")[2]
    assert len(read_rows(content + sample, kind)) == len(SAMPLES_OF[kind])
    code, _out, err = run(capsys, *words)
    assert code == 2
    assert "exists already" in err
    assert file.read_bytes() == content


@pytest.mark.usefixtures("state")
def test_training_waiver_is_granted_listed_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup in a reason is printed literally."""
    assert run(capsys, *WAIVE, *WHY) == (0, "waived: LAW for E0007 until 2026-06-30\n", "")
    (listed,) = run_json(capsys, "waivers")[1]["waivers"]
    assert listed["reason"] == "Works abroad [red]until[/red] summer"
    assert "[red]until[/red]" in run(capsys, "waivers")[1]
    words = ("unwaive", "E0007", "LAW", "--by", "chen")
    assert run(capsys, *words) == (0, "waiver ended: LAW for E0007\n", "")
    assert run_json(capsys, "waivers")[1] == {"waivers": []}
    assert run_json(capsys, *WAIVE, *WHY)[1]["until"] == "2026-06-30"
    assert run_json(capsys, *words)[1] == {"person": "E0007", "course": "LAW", "ended_by": "chen"}


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((*WAIVE[:4], "summer", *WHY), "Write it as 2026-12-31."),
        ((*WAIVE[:4], "2026-03-02", *WHY), "is not in the future"),  # today, in Shanghai
        ((*WAIVE[:4], "2027-06-30", *WHY), "is more than 366 days away"),
        ((*WAIVE, *WHY[:3], "e0007"), "cannot waive their own course"),
        ((*WAIVE, "--reason", "...", *WHY[2:]), "The reason has no words"),
        ((*WAIVE, *WHY[:2]), "--by"),
        (("unwaive", "E0007", "LAW", "--by", "chen"), "is not waived"),
    ],
)
def test_training_waive_command_with_invalid_values_exits_with_2(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    """The reason is printed on stderr."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert why in err
    assert run_json(capsys, "waivers")[1] == {"waivers": []}


SAMPLES_OF = {
    Kind.ROSTER: [{column.name: ROSTER[0][column.name] for column in COLUMNS[Kind.ROSTER]}],
    Kind.COURSES: [
        {
            "course": "LAW",
            "title": "Law",
            "topic": "law",
            "version": "1",
            "published_on": "2026-01-05",
            "within_days": "30",
            "repeat_months": "12",
            "due_each_year": "",
            "retake_within_days": "",
        }
    ],
    Kind.COMPLETIONS: COMPLETIONS,
}
