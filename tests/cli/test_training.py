"""``training``: files come in whole or not at all, and waivers are granted, shown and ended."""

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
from tests.support.databases import fresh
from tests.training.uploads.support import COMPLETIONS, ROSTER, read, written

NOW = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)  # 07:30 on the second in Shanghai
WAIVE = ("waive", "E0007", "LAW", "--until", "2026-06-30")
WHY = ("--reason", "Works abroad [red]until[/red] summer", "--by", "li.na")


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """A state database that the tests share."""
    with fresh(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """It, empty, and a pack that takes its roster from uploads."""
    with shared.begin() as conn:
        conn.execute(text("TRUNCATE training_upload, training_waiver RESTART IDENTITY CASCADE"))
    pack = load_pack(SHIPPED)
    uploaded = {"people": TrainingSource(upload=True)}
    rules = pack.require(TRAINING).model_copy(update=uploaded)
    place = SimpleNamespace(
        state=shared,
        clock=FixedClock(NOW),
        pack=pack.model_copy(update={"sections": {TRAINING.file: rules}}),
    )
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    return shared


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    """A roster as Excel saves it."""
    file = tmp_path / "roster.csv"
    file.write_bytes(written(ROSTER, encoding="GB18030"))
    return file


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; its exit code, what it said on stdout and on stderr."""
    code = app._run(["training", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _said = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return code, found


@pytest.mark.usefixtures("state")
def test_a_roster_is_taken_and_shown(capsys: pytest.CaptureFixture[str], roster: Path) -> None:
    """The same file again changes nothing and says so."""
    words = ("upload", "roster", str(roster), "--by", "chen")
    assert run(capsys, *words) == (
        0,
        "taken: roster, 2 lines (GB18030, comma), as upload 1\n",
        "",
    )
    assert run(capsys, *words)[1] == "unchanged: the same file stands already, as upload 1\n"
    assert told(capsys, *words) == (
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
    (shown,) = told(capsys, "uploads")[1]["uploads"]
    assert (shown["upload"], shown["uploaded_by"], shown["counts"]) == (1, "chen", True)
    code, out, _said = run(capsys, "uploads")
    assert code == 0
    assert "2026-03-02 07:30" in out
    assert shown["sha256"][:12] in out


@pytest.mark.usefixtures("state")
def test_what_becomes_of_a_file_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, roster: Path
) -> None:
    """What it replaces, what was new, and that nobody will read it."""
    run(capsys, "upload", "roster", str(roster), "--by", "chen")
    roster.write_bytes(written(ROSTER[:1]))
    out = run(capsys, "upload", "roster", str(roster), "--by", "chen")[1]
    assert out == "taken: roster, 1 line (UTF-8, comma), as upload 2; takes the place of 2 lines\n"
    file = tmp_path / "completions.csv"
    failed = COMPLETIONS[0] | {"passed": "no"}
    for rows, said in (
        ([failed, failed], "2 lines (UTF-8, comma), as upload 3; new: 1"),
        (COMPLETIONS, "as upload 4; new: 1; not passed before: 1"),
    ):
        file.write_bytes(written(rows))
        code, out, remark = run(capsys, "upload", "completions", str(file), "--by", "chen")
        assert code == 0
        assert out.endswith(f"{said}\n")
        assert "takes completions from a query" in remark


@pytest.mark.usefixtures("state")
def test_a_file_with_faults_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, roster: Path
) -> None:
    """Each is named, nobody's name is, and nothing is stored."""
    rows = [ROSTER[0] | {"joined_on": "2026-02-30"}, ROSTER[1] | {"access": "王芳"}]
    roster.write_bytes(written(rows))
    words = ("upload", "roster", str(roster), "--by", "chen")
    code, out, said = run(capsys, *words)
    assert (code, out) == (2, "")
    assert said.splitlines() == [
        "error: roster.csv has 2 faults, and nothing of it was taken:",
        "- line 2: joined_on (入职日期): 2026-02-30 is a day that does not exist",
        "- line 3: access (客户信息权限): is neither yes nor no",
    ]
    code, found = told(capsys, *words)
    assert code == 2
    assert found["error"].startswith("roster.csv has 2 faults, and nothing of it was taken: - line")
    assert told(capsys, "uploads")[1] == {"uploads": []}


@pytest.mark.usefixtures("state")
def test_a_roster_that_was_cut_short_needs_a_word(
    capsys: pytest.CaptureFixture[str], roster: Path
) -> None:
    """--shrinks lets it in."""
    rows = [ROSTER[1] | {"person": f"E{at}"} for at in range(5)]
    roster.write_bytes(written(rows))
    words = ("upload", "roster", str(roster), "--by", "chen")
    assert run(capsys, *words)[0] == 0
    roster.write_bytes(written(rows[:2]))
    code, _out, said = run(capsys, *words)
    assert code == 2
    assert "say --shrinks" in said
    assert run(capsys, *words, "--shrinks")[0] == 0


@pytest.mark.usefixtures("state")
def test_what_cannot_be_read_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file that is not there, a folder, a pipe, another kind, nobody who hands it in."""
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
        (("roster", str(empty), *by), "It is empty."),
        (("people", str(empty), *by), "There are: roster, courses, completions."),
        (("roster", str(empty), "--by", " "), "--by has an empty value"),
        (("roster", str(empty)), "--by"),
    ):
        code, out, said = run(capsys, "upload", *words)
        assert (code, out) == (2, "")
        assert why in said
    os.close(holder)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("more", [(), ("--chinese",)])
def test_a_template_is_read_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: Kind, more: tuple[str, ...]
) -> None:
    """With the mark by which Excel knows its encoding; a file that is there stays."""
    file = tmp_path / "template.csv"
    words = ("template", str(kind), "--out", str(file), *more)
    assert run(capsys, *words) == (0, f"written: {file}\n", "")
    content = file.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    sample = written(SAMPLES_OF[kind]).partition(b"\r\n")[2]
    assert len(read(content + sample, kind)) == len(SAMPLES_OF[kind])
    code, _out, said = run(capsys, *words)
    assert code == 2
    assert "is there already" in said
    assert file.read_bytes() == content


@pytest.mark.usefixtures("state")
def test_a_waiver_is_granted_shown_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """Text in brackets is text."""
    assert run(capsys, *WAIVE, *WHY) == (0, "waived: LAW for E0007 until 2026-06-30\n", "")
    (shown,) = told(capsys, "waivers")[1]["waivers"]
    assert shown["reason"] == "Works abroad [red]until[/red] summer"
    assert "[red]until[/red]" in run(capsys, "waivers")[1]
    words = ("unwaive", "E0007", "LAW", "--by", "chen")
    assert run(capsys, *words) == (0, "ended: LAW for E0007\n", "")
    assert told(capsys, "waivers")[1] == {"waivers": []}
    assert told(capsys, *WAIVE, *WHY)[1]["until"] == "2026-06-30"
    assert told(capsys, *words)[1] == {"person": "E0007", "course": "LAW", "ended_by": "chen"}


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((*WAIVE[:4], "summer", *WHY), "Write 2026-12-31."),
        ((*WAIVE[:4], "2026-03-02", *WHY), "is not to come"),  # today, in Shanghai
        ((*WAIVE[:4], "2027-06-30", *WHY), "is more than 366 days away"),
        ((*WAIVE, *WHY[:3], "e0007"), "cannot waive their own course"),
        ((*WAIVE, "--reason", "...", *WHY[2:]), "The reason says nothing"),
        ((*WAIVE, *WHY[:2]), "--by"),
        (("unwaive", "E0007", "LAW", "--by", "chen"), "is not waived"),
    ],
)
def test_what_is_no_waiver_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    """Exit code 2 and the reason on stderr; nothing changes."""
    code, out, said = run(capsys, *words)
    assert (code, out) == (2, "")
    assert why in said
    assert told(capsys, "waivers")[1] == {"waivers": []}


SAMPLES_OF = {
    Kind.ROSTER: [{one.name: ROSTER[0][one.name] for one in COLUMNS[Kind.ROSTER]}],
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
