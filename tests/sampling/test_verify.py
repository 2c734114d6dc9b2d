"""Tests of the verification of a bundle: a repeated draw detects every edit of the bundle."""

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
from tests.sampling.company import SEED, Company, by_branch, population

OPENINGS, BRANCHES, STAGED, WHOLE = "openings", "branches", "staged", "whole"


@pytest.fixture(scope="module")
def drawn(shop: Company) -> Path:
    """Provide a sealed bundle of four populations: plain, with strata, staged, and a census."""
    shop.reset()
    shop.use_populations(
        population(),
        by_branch(),
        by_branch(STAGED, plan="staged", tolerable="30%"),
        population(WHOLE, sql="SELECT id FROM log WHERE id <= 5"),
    )
    return shop.root / shop.run().path


@pytest.fixture
def bundle(drawn: Path, tmp_path: Path) -> Path:
    """Provide a copy of the bundle that the test may change."""
    return Path(shutil.copytree(drawn, tmp_path / "bundle"))


def repeat_draw(bundle: Path) -> Redraw:
    return redraw(DiskFolder(bundle))


def faults(bundle: Path) -> dict[str, tuple[str, ...]]:
    """Return the faults that a repeated draw finds, by population.

    Faults of the whole bundle have the key ``""``.
    """
    result = repeat_draw(bundle)
    by_population = {
        redrawn.population: redrawn.faults for redrawn in result.populations if redrawn.faults
    }
    return by_population | ({"": result.faults} if result.faults else {})


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the content of a JSON file.

    Args:
        path: the file.
        change: function that changes the parsed content, or returns new content.
    """
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed, ensure_ascii=False))


def edit_population(bundle: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a population in commitment.json of a bundle."""

    def change_population(commitment: Any) -> None:
        change(next(item for item in commitment["populations"] if item["population"] == name))

    edit(bundle / "commitment.json", change_population)


def setting(*path: Any, to: Any) -> Callable[[Any], None]:
    """Return a function that sets the value at a path of keys in parsed JSON."""

    def change(content: Any) -> None:
        *parents, last = path
        for step in parents:
            content = content[step]
        assert content[last] != to
        content[last] = to

    return change


def test_repeated_draw_from_unchanged_bundle_gives_the_same_sample(bundle: Path) -> None:
    """The repeated draw uses only a copy of the bundle on disk, without a database."""
    result = repeat_draw(bundle)
    assert (result.matches, result.audit, result.seed, result.faults) == (True, "2026Q3", SEED, ())
    sizes = {redrawn.population: (redrawn.items, redrawn.drawn) for redrawn in result.populations}
    assert sizes[OPENINGS][0] == sizes[BRANCHES][0] == 200
    assert sizes[WHOLE] == (5, 5)
    samples = {name: json.loads((bundle / f"samples/{name}.json").read_text()) for name in sizes}
    assert {name: len(sample["items"]) for name, sample in samples.items()} == {
        name: drawn for name, (_items, drawn) in sizes.items()
    }
    assert {redrawn.population: redrawn.rejected for redrawn in result.populations} == {
        name: sum(map(len, sample["rejected"].values())) for name, sample in samples.items()
    }


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED, WHOLE])
def test_redraw_reports_fault_if_sampling_frame_was_edited_or_deleted(
    bundle: Path, name: str
) -> None:
    """Edits are changed, added or removed bytes, another order, invalid text, a missing file."""
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
def test_redraw_reports_fault_if_sampling_plan_in_commitment_was_edited(
    bundle: Path, name: str, path: list[str], value: Any
) -> None:
    """The verification computes the plan from the rates and compares both plans."""

    def change(population: Any) -> None:
        new = not population["stratified"] if path == ["stratified"] else value
        setting(*path, to=new)(population)

    edit_population(bundle, name, change)
    assert name in faults(bundle)


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED])
def test_redraw_reports_fault_if_size_name_or_order_of_strata_was_edited(
    bundle: Path, name: str
) -> None:
    """The size, the name or the order of strata is changed."""
    path = bundle / "commitment.json"
    before = path.read_bytes()
    for change in (
        lambda size: size + 1,
        lambda size: size - 1,
        lambda _size: 0,
        lambda _size: -1,
        lambda _size: 10**12,
    ):
        edit_population(bundle, name, lambda population, change=change: population["strata"].update(
            {key: change(size) for key, size in list(population["strata"].items())[:1]}
        ))  # fmt: skip
        assert name in faults(bundle)
        path.write_bytes(before)
    for part in ("strata", "plan"):
        edit_population(bundle, name, lambda population, part=part: rename(population, part))
        assert name in faults(bundle)
        path.write_bytes(before)
    edit_population(bundle, BRANCHES, lambda population: population.update(
        strata=dict(reversed(population["strata"].items()))
    ))  # fmt: skip
    assert set(faults(bundle)) == {BRANCHES}


def rename(population: Any, part: str) -> None:
    counts = population[part] if part == "strata" else population[part]["drawn"]
    first = next(iter(counts))
    counts["another"] = counts.pop(first)


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED, WHOLE])
@pytest.mark.parametrize("field", ["number", "stage", "line", "ordinal", "key", "stratum"])
def test_redraw_reports_fault_if_a_field_of_a_sample_item_was_edited(
    bundle: Path, name: str, field: str
) -> None:
    """The test edits each column of the first and of the last item."""
    path = bundle / f"samples/{name}.json"
    before = path.read_bytes()
    for at in (0, -1):
        value: Any = "other" if field in ("key", "stratum") else 999
        edit(path, setting("items", at, field, to=value))
        assert faults(bundle) == {name: ("the repeated draw has other items than the bundle",)}
        path.write_bytes(before)


def test_redraw_reports_fault_if_sample_items_were_added_removed_or_reordered(bundle: Path) -> None:
    """For example, a person may remove an item that deviates."""
    path = bundle / f"samples/{OPENINGS}.json"
    before = path.read_bytes()
    changes: list[Callable[[Any], Any]] = [
        lambda sample: sample["items"].pop(3) and None,
        lambda sample: sample["items"].append(sample["items"][0]),
        lambda sample: sample["items"].reverse(),
        lambda sample: sample["items"].clear(),
    ]
    for change in changes:
        edit(path, change)
        assert set(faults(bundle)) == {OPENINGS}
        path.write_bytes(before)
    path.write_bytes(b"{}")
    assert "the draw cannot be repeated" in faults(bundle)[OPENINGS]
    path.unlink()
    assert "the draw cannot be repeated" in faults(bundle)[OPENINGS]


@pytest.mark.parametrize("name", [OPENINGS, BRANCHES, STAGED])
def test_redraw_reports_fault_if_list_of_numbers_that_were_drawn_a_second_time_was_edited(
    bundle: Path, name: str
) -> None:
    """Ordinals and strata of rejected repetitions are added, removed or changed."""
    path = bundle / f"samples/{name}.json"
    before = path.read_bytes()
    stratum = next(iter(json.loads(before)["rejected"]))
    changes: list[Callable[[Any], Any]] = [
        lambda sample: sample["rejected"][stratum].append(1),
        lambda sample: sample["rejected"].update({stratum: [7, 7, 7]}),
        lambda sample: sample["rejected"].pop(stratum) and None,
        lambda sample: sample["rejected"].update(other=[]),
        lambda sample: sample["rejected"].clear(),
    ]
    for change in changes:
        edit(path, change)
        assert set(faults(bundle)) == {name}
        path.write_bytes(before)


@pytest.mark.parametrize("field", ["form", "audit", "population", "frame_sha256"])
@pytest.mark.parametrize("name", [OPENINGS, WHOLE])
def test_redraw_reports_fault_if_quarter_population_or_frame_in_sample_file_was_edited(
    bundle: Path, name: str, field: str
) -> None:
    """The header of a sample file names quarter, population and frame."""
    edit(bundle / f"samples/{name}.json", setting(field, to="other"))
    assert faults(bundle) == {name: ("the sample names another audit, population or frame",)}


@pytest.mark.parametrize("seed", [f"{SEED} ", SEED.replace("3", "4", 1), "", SEED[:-1], "\ud800"])
def test_redraw_does_not_accept_a_bundle_whose_seed_was_edited(bundle: Path, seed: str) -> None:
    """An added space is an edit too. A census does not depend on the seed."""
    path = bundle / "seed.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"seed": seed}))
    if seed == "\ud800":
        with pytest.raises(UsageError):
            repeat_draw(bundle)
    else:
        assert {OPENINGS, BRANCHES, STAGED} <= set(faults(bundle))


def test_redraw_reports_fault_if_seed_was_published_before_commitment(bundle: Path) -> None:
    """The time of publication or the time of the commitment was edited."""
    path = bundle / "seed.json"
    before = path.read_bytes()
    sealed = json.loads(before)["commitment"]["sealed_at"]
    published = json.loads(before)["published_at"]
    edit(path, setting("published_at", to=sealed))
    assert list(faults(bundle)) == [""]
    path.write_bytes(before)
    edit(path, setting("commitment", "sealed_at", to=published))
    assert "the seed was published at" in faults(bundle)[""][0]


def test_redraw_reports_fault_if_commitment_contains_unknown_draw_algorithm(bundle: Path) -> None:
    edit(bundle / "commitment.json", setting("algorithm", to="dice"))
    assert "dice drew the bundle" in faults(bundle)[""][0]


def test_redraw_reports_fault_if_quarter_in_commitment_was_edited(bundle: Path) -> None:
    """The quarter is part of the hashed text, and also of the sample file of a census."""
    edit(bundle / "commitment.json", setting("audit", to="2026Q2"))
    assert set(faults(bundle)) == {OPENINGS, BRANCHES, STAGED, WHOLE}


def test_redraw_reports_fault_if_a_population_was_removed_from_commitment(bundle: Path) -> None:
    """The sample of a population that was removed from the commitment is still in the bundle."""
    edit(
        bundle / "commitment.json",
        lambda commitment: commitment.update(
            populations=[
                item for item in commitment["populations"] if item["population"] != OPENINGS
            ]
        ),
    )
    assert "samples/openings.json" in faults(bundle)[""][0]
    assert not repeat_draw(bundle).matches


@pytest.mark.parametrize("name", ["commitment.json", "seed.json"])
def test_redraw_raises_usage_error_if_commitment_or_seed_file_is_missing_or_invalid(
    bundle: Path, name: str
) -> None:
    """The error names the file that is missing or invalid."""
    (bundle / name).write_bytes(b"[]")
    with pytest.raises(UsageError, match=f"{name} is not in a format that ParcelSeal writes"):
        repeat_draw(bundle)
    (bundle / name).unlink()
    with pytest.raises(UsageError, match=f"{name} is missing") as caught:
        repeat_draw(bundle)
    assert "sample_audit" in caught.value.action


@pytest.fixture(autouse=True)
def unchanged_bundle(drawn: Path) -> Iterator[None]:
    """Assert that the tests of the module change only copies of the sealed bundle."""
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    yield
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_redraw_reports_fault_if_commitment_differs_from_sealed_commitment(
    shop: Company, bundle: Path
) -> None:
    """The comparison needs the bundle of the commitment.

    The result states whether that bundle was available.
    """
    assert repeat_draw(bundle).commitment_seen is False

    def find_bundle(name: str) -> DiskFolder:
        return DiskFolder(shop.root / name)

    verified = redraw(DiskFolder(bundle), find_bundle)
    assert (verified.commitment_seen, verified.matches) == (True, True)
    digest = hashlib.sha256((bundle / "commitment.json").read_bytes()).hexdigest()
    assert verified.commitment_sha256 == digest
    with (bundle / "commitment.json").open("a") as file:
        file.write("\n")
    changed = redraw(DiskFolder(bundle), find_bundle)
    assert changed.faults == (
        "the commitment differs from the one that was sealed before the seed was known",
    )
