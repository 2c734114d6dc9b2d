"""Drawing again: every single edit of what a bundle says is noticed, by the bundle alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from include.evidence.folder import DiskFolder
from include.sampling.verify import Redraw, redraw
from include.services.errors import UsageError
from tests.sampling.rig import SEED, Rig, by_branch, population

OPENINGS, BRANCHES, STAGED, WHOLE = "openings", "branches", "staged", "whole"


@pytest.fixture(scope="module")
def drawn(shop: Rig) -> Path:
    """A sealed bundle of four populations: plain, in strata, in stages, and a census."""
    shop.empty()
    shop.audit(
        population(),
        by_branch(),
        by_branch(STAGED, plan="staged", tolerable="30%"),
        population(WHOLE, sql="SELECT id FROM log WHERE id <= 5"),
    )
    return shop.root / shop.run().path


@pytest.fixture
def bundle(drawn: Path, tmp_path: Path) -> Path:
    """A copy on a disk, for the test to harm."""
    return Path(shutil.copytree(drawn, tmp_path / "bundle"))


def again(bundle: Path) -> Redraw:
    return redraw(DiskFolder(bundle))


def faults(bundle: Path) -> dict[str, tuple[str, ...]]:
    """What is wrong, by population; of the bundle as a whole under the empty name."""
    found = again(bundle)
    told = {one.population: one.faults for one in found.populations if one.faults}
    return told | ({"": found.faults} if found.faults else {})


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed, ensure_ascii=False))


def committed(bundle: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change one population of the commitment."""

    def one(made: Any) -> None:
        change(next(each for each in made["populations"] if each["population"] == name))

    edit(bundle / "commitment.json", one)


def setting(*path: Any, to: Any) -> Callable[[Any], None]:
    """A change of one value at a path."""

    def change(content: Any) -> None:
        *way, last = path
        for step in way:
            content = content[step]
        assert content[last] != to
        content[last] = to

    return change


def test_a_bundle_that_nobody_touched_is_drawn_again(bundle: Path) -> None:
    """From a copy on a disk, without any database."""
    found = again(bundle)
    assert (found.holds, found.audit, found.seed, found.faults) == (True, "2026Q3", SEED, ())
    told = {one.population: (one.items, one.drawn) for one in found.populations}
    assert told[OPENINGS][0] == told[BRANCHES][0] == 200
    assert told[WHOLE] == (5, 5)
    samples = {name: json.loads((bundle / f"samples/{name}.json").read_text()) for name in told}
    assert {name: len(one["items"]) for name, one in samples.items()} == {
        name: drawn for name, (_items, drawn) in told.items()
    }
    assert {one.population: one.rejected for one in found.populations} == {
        name: sum(map(len, one["rejected"].values())) for name, one in samples.items()
    }


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED, WHOLE])
def test_any_edit_of_a_frame_is_noticed(bundle: Path, name: str) -> None:
    """A byte, a line more or less, another order, bytes that are no text, none at all."""
    path = bundle / f"frames/{name}.tsv"
    content = path.read_bytes()
    first, rest = content.split(b"\n", 1)
    second, rest = rest.split(b"\n", 1)
    for edited in (
        content.replace(b"3", b"8", 1),
        content[:-1],
        content + b"1",
        content + b"\n",
        content + first + b"\n",
        rest,
        b"\n".join([second, first, rest]),
        b"\xff" + content,
        content[:-2] + b"\xff\n",
        content.replace(b"\t", b"", 1) if b"\t" in content else content + b"\t\n",
        b"",
        b"\t\n" * 50,
        b"\n" * 200,
    ):
        path.write_bytes(edited)
        assert set(faults(bundle)) == {name}, edited[:40]
    path.unlink()
    assert "its frame is missing" in faults(bundle)[name]
    path.write_bytes(content)
    assert faults(bundle) == {}


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["sha256"], "0" * 64),
        (["file"], "frames/other.tsv"),
        (["file"], "/dev/zero"),
        (["file"], "../../../../../../dev/zero"),
        (["items"], 201),
        (["items"], 0),
        (["tolerable"], "10%"),
        (["confidence"], "99%"),
        (["expected"], "5%"),
        (["expected"], "90%"),
        (["planned_as"], "discovery"),
        (["stratified"], None),
        (["plan", "kind"], "discovery"),
        (["plan", "method"], "other"),
        (["plan", "stages"], 3),
        (["plan", "stages"], 0),
        (["plan", "stages"], 10**15),
        (["plan", "n"], 1),
        (["plan", "acceptable"], 1),
        (["plan", "achieved_risk"], "0.049"),
        (["plan", "drawn"], {}),
        (["plan", "drawn"], {"other": 3}),
        (["strata"], {}),
        (["strata"], {"": 10**18}),
        (["strata"], {"": 0}),
        (["strata"], {"": -5}),
    ],
)  # fmt: skip
def test_any_edit_of_a_plan_is_noticed(
    bundle: Path, name: str, path: list[str], value: Any
) -> None:
    """Rates, kind, size, strata: the plan is made anew from the rates and compared."""

    def change(one: Any) -> None:
        setting(*path, to=not one["stratified"] if path == ["stratified"] else value)(one)

    committed(bundle, name, change)
    assert name in faults(bundle)


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED])
def test_any_edit_of_a_stratum_is_noticed(bundle: Path, name: str) -> None:
    """One item more, none, or another name."""
    path = bundle / "commitment.json"
    before = path.read_bytes()
    for change in (
        lambda size: size + 1,
        lambda size: size - 1,
        lambda _size: 0,
        lambda _size: -1,
        lambda _size: 10**12,
    ):
        committed(bundle, name, lambda one, change=change: one["strata"].update(
            {key: change(size) for key, size in list(one["strata"].items())[:1]}
        ))  # fmt: skip
        assert name in faults(bundle)
        path.write_bytes(before)
    for part in ("strata", "plan"):
        committed(bundle, name, lambda one, part=part: rename(one, part))
        assert name in faults(bundle)
        path.write_bytes(before)
    committed(bundle, BRANCHES, lambda one: one.update(
        strata=dict(reversed(one["strata"].items()))
    ))  # fmt: skip
    assert set(faults(bundle)) == {BRANCHES}


def rename(one: Any, part: str) -> None:
    counts = one[part] if part == "strata" else one[part]["drawn"]
    first = next(iter(counts))
    counts["another"] = counts.pop(first)


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED, WHOLE])
@pytest.mark.parametrize("field", ["number", "stage", "line", "ordinal", "key", "stratum"])
def test_any_edit_of_an_item_is_noticed(bundle: Path, name: str, field: str) -> None:
    """Of the first and of the last one, in every column."""
    path = bundle / f"samples/{name}.json"
    before = path.read_bytes()
    for at in (0, -1):
        value: Any = "other" if field in ("key", "stratum") else 999
        edit(path, setting("items", at, field, to=value))
        assert faults(bundle) == {name: ("other items are drawn than the bundle names",)}
        path.write_bytes(before)


def test_items_that_were_added_dropped_or_moved_are_noticed(bundle: Path) -> None:
    """Whoever drops the one that deviates is seen."""
    path = bundle / f"samples/{OPENINGS}.json"
    before = path.read_bytes()
    changes: list[Callable[[Any], Any]] = [
        lambda one: one["items"].pop(3) and None,
        lambda one: one["items"].append(one["items"][0]),
        lambda one: one["items"].reverse(),
        lambda one: one["items"].clear(),
    ]
    for change in changes:
        edit(path, change)
        assert set(faults(bundle)) == {OPENINGS}
        path.write_bytes(before)
    path.write_bytes(b"{}")
    assert "it cannot be drawn again" in faults(bundle)[OPENINGS]
    path.unlink()
    assert "it cannot be drawn again" in faults(bundle)[OPENINGS]


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED])
def test_any_edit_of_what_was_rejected_is_noticed(bundle: Path, name: str) -> None:
    """An ordinal more, less or other, and strata more or less."""
    path = bundle / f"samples/{name}.json"
    before = path.read_bytes()
    stratum = next(iter(json.loads(before)["rejected"]))
    changes: list[Callable[[Any], Any]] = [
        lambda one: one["rejected"][stratum].append(1),
        lambda one: one["rejected"].update({stratum: [7, 7, 7]}),
        lambda one: one["rejected"].pop(stratum) and None,
        lambda one: one["rejected"].update(other=[]),
        lambda one: one["rejected"].clear(),
    ]
    for change in changes:
        edit(path, change)
        assert set(faults(bundle)) == {name}
        path.write_bytes(before)


@pytest.mark.parametrize("field", ["form", "audit", "population", "frame_sha256"])
@pytest.mark.parametrize("name", [OPENINGS, WHOLE])
def test_any_edit_of_what_a_sample_names_is_noticed(bundle: Path, name: str, field: str) -> None:
    """It is the sample of this quarter, population and frame."""
    edit(bundle / f"samples/{name}.json", setting(field, to="other"))
    assert faults(bundle) == {name: ("the sample names another audit, population or frame",)}


@pytest.mark.parametrize("seed", [f"{SEED} ", SEED.replace("3", "4", 1), "", SEED[:-1], "\ud800"])
def test_any_edit_of_the_seed_is_noticed(bundle: Path, seed: str) -> None:
    """Down to a blank, in every population of which something is drawn."""
    path = bundle / "seed.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"seed": seed}))
    if seed == "\ud800":
        with pytest.raises(UsageError):
            again(bundle)
    else:
        assert {OPENINGS, BRANCHES, STAGED} <= set(faults(bundle))


def test_a_seed_that_was_known_before_is_noticed(bundle: Path) -> None:
    """To the moment; and that the commitment came later, too."""
    path = bundle / "seed.json"
    before = path.read_bytes()
    sealed = json.loads(before)["commitment"]["sealed_at"]
    published = json.loads(before)["published_at"]
    edit(path, setting("published_at", to=sealed))
    assert list(faults(bundle)) == [""]
    path.write_bytes(before)
    edit(path, setting("commitment", "sealed_at", to=published))
    assert "the seed was known at" in faults(bundle)[""][0]


def test_another_algorithm_is_named(bundle: Path) -> None:
    """What it would have drawn, nobody here can say."""
    edit(bundle / "commitment.json", setting("algorithm", to="dice"))
    assert "it was drawn by dice" in faults(bundle)[""][0]


def test_another_quarter_is_noticed(bundle: Path) -> None:
    """The text that is hashed names it; a census names it in its file."""
    edit(bundle / "commitment.json", setting("audit", to="2026Q2"))
    assert set(faults(bundle)) == {OPENINGS, BRANCHES, STAGED, WHOLE}


def test_a_population_that_was_taken_out_is_missed(bundle: Path) -> None:
    """Its sample is there, and nothing says any longer what it was drawn from."""
    edit(
        bundle / "commitment.json",
        lambda made: made.update(
            populations=[one for one in made["populations"] if one["population"] != OPENINGS]
        ),
    )
    assert "samples/openings.json" in faults(bundle)[""][0]
    assert not again(bundle).holds


@pytest.mark.parametrize("name", ["commitment.json", "seed.json"])
def test_a_folder_that_is_no_bundle_of_an_audit_is_wrong_usage(bundle: Path, name: str) -> None:
    """The message says what is missing or not as it should be."""
    (bundle / name).write_bytes(b"[]")
    with pytest.raises(UsageError, match=f"{name} is not one that ParcelSeal writes"):
        again(bundle)
    (bundle / name).unlink()
    with pytest.raises(UsageError, match=f"There is no {name}") as caught:
        again(bundle)
    assert "sample_audit" in caught.value.action


@pytest.fixture(autouse=True)
def nothing_else_changed(drawn: Path) -> Iterator[None]:
    """The sealed bundle itself is never touched."""
    before = {one: one.stat().st_mtime_ns for one in drawn.rglob("*")}
    yield
    assert {one: one.stat().st_mtime_ns for one in drawn.rglob("*")} == before


def test_a_commitment_that_is_not_the_sealed_one_is_noticed(shop: Rig, bundle: Path) -> None:
    """Where the commitment's own bundle is at hand; else it is said that it is not."""
    assert again(bundle).commitment_seen is False

    def beside(name: str) -> DiskFolder:
        return DiskFolder(shop.root / name)

    seen = redraw(DiskFolder(bundle), beside)
    assert (seen.commitment_seen, seen.holds) == (True, True)
    digest = hashlib.sha256((bundle / "commitment.json").read_bytes()).hexdigest()
    assert seen.commitment_sha256 == digest
    with (bundle / "commitment.json").open("a") as file:
        file.write("\n")
    changed = redraw(DiskFolder(bundle), beside)
    assert changed.faults == (
        "the commitment is not the one that was sealed before the seed was known",
    )
