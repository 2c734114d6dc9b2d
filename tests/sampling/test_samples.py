"""Tests of samples. Frame, plan and seed determine a sample, so anybody can repeat the draw."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.commitment import CommittedPopulation, Plan
from include.sampling.exact.selection import draw
from include.sampling.frame import NO_STRATUM
from include.sampling.samples import Sample, hashed_text, ordinals, sample
from include.services.errors import ControlFailed

SEED, QUARTER = "3391.76", "2026Q3"


def committed(
    drawn: dict[str, int], sizes: dict[str, int], *, stages: int = 1, **more: Any
) -> tuple[CommittedPopulation, bytes]:
    """Return a committed population and its frame, in which the strata alternate.

    Args:
        drawn: stratum -> number of items to draw in each stage.
        sizes: stratum -> number of its items.
        stages: number of stages.
        more: attributes of the population that replace the default attributes.
    """
    stratified = set(sizes) != {NO_STRATUM}
    remaining, lines, number = dict(sizes), [], 0
    while any(remaining.values()):
        for name in sizes:
            if remaining[name]:
                remaining[name] -= 1
                number += 1
                escaped = name.replace("\\", r"\\")
                lines.append(f"k{number}\t{escaped}\n" if stratified else f"k{number}\n")
    content = "".join(lines).encode()
    plan = Plan(
        kind="staged" if stages > 1 else "single",
        method="binomial",
        stages=stages,
        n=sum(drawn.values()),
        acceptable=0,
        achieved_risk="0.05",
        drawn=drawn,
    )
    fields = {"population": "openings"} | more
    population = CommittedPopulation(
        file="frames/openings.tsv",
        sha256=hashlib.sha256(content).hexdigest(),
        items=sum(sizes.values()),
        strata=sizes,
        stratified=stratified,
        tolerable="5%",
        expected="0",
        confidence="95%",
        planned_as=plan.kind,
        plan=plan,
        attributes=("approved",),
        **fields,
    )
    return population, content


def draw_from(
    population: CommittedPopulation, content: bytes, seed: str = SEED, audit: str = QUARTER
) -> Sample:
    return sample(seed, audit, population, io.BytesIO(content))


def test_sample_has_the_items_that_the_published_hash_formula_gives() -> None:
    """The hashed text is seed, quarter and population. The test computes the hash directly."""
    population, content = committed({NO_STRATUM: 5}, {NO_STRATUM: 1000})
    drawn_sample = draw_from(population, content)
    expected = [
        1 + int(hashlib.sha256(f"3391.76,2026Q3,openings,{i}".encode()).hexdigest(), 16) % 1000
        for i in range(1, 6)
    ]
    assert [item.ordinal for item in drawn_sample.items] == expected
    assert [item.key for item in drawn_sample.items] == [f"k{n}" for n in expected]
    assert [item.number for item in drawn_sample.items] == [1, 2, 3, 4, 5]
    assert {(item.stage, item.stratum) for item in drawn_sample.items} == {(1, NO_STRATUM)}
    assert (drawn_sample.audit, drawn_sample.population, drawn_sample.frame_sha256) == (
        QUARTER,
        "openings",
        population.sha256,
    )


def test_sample_lists_every_number_that_was_drawn_a_second_time_in_order_of_draw() -> None:
    """A repeated draw can therefore verify each rejection."""
    population, content = committed({NO_STRATUM: 25}, {NO_STRATUM: 30})
    drawn_sample = draw_from(population, content)
    expected = draw("3391.76,2026Q3,openings", 30, 25)
    assert [item.ordinal for item in drawn_sample.items] == expected.items
    assert list(drawn_sample.rejected[NO_STRATUM]) == expected.rejected
    assert expected.rejected


def test_hashed_text_of_draw_differs_for_each_population_stratum_quarter_and_seed() -> None:
    """Every combination of population, stratum, quarter and seed has a different hashed text."""
    texts = [
        hashed_text(seed, audit, population, stratum, stratified=stratified)
        for seed in ("1234", "1235")
        for audit in ("2026Q3", "2026Q4")
        for population in ("openings", "shares")
        for stratum, stratified in (("", False), ("", True), ("a", True), ("b", True))
    ]
    assert len(set(texts)) == len(texts)
    drawn = []
    for name, seed, audit in (
        ("openings", SEED, QUARTER),
        ("shares", SEED, QUARTER),
        ("openings", "3391.77", QUARTER),
        ("openings", SEED, "2026Q4"),
    ):
        population, content = committed({NO_STRATUM: 9}, {NO_STRATUM: 5000}, population=name)
        drawn.append(tuple(item.line for item in draw_from(population, content, seed, audit).items))
    assert len(set(drawn)) == len(drawn)


def test_items_of_each_stratum_come_from_separate_random_sequence() -> None:
    """The strata are in the order of the commitment, and their items have consecutive numbers."""
    population, content = committed({"b": 3, "a": 4}, {"b": 300, "a": 400})
    drawn_sample = draw_from(population, content)
    assert [item.stratum for item in drawn_sample.items] == ["b"] * 3 + ["a"] * 4
    assert [item.number for item in drawn_sample.items] == list(range(1, 8))
    for name, size, n in (("b", 300, 3), ("a", 400, 4)):
        expected = draw(f"3391.76,2026Q3,openings,{name}", size, n).items
        assert [item.ordinal for item in drawn_sample.items if item.stratum == name] == expected
    for item in drawn_sample.items:
        assert content.decode().split("\n")[item.line - 1] == f"{item.key}\t{item.stratum}"


def test_second_stage_continues_random_sequence_of_first_stage_in_each_stratum() -> None:
    """No item is therefore drawn in both stages."""
    population, content = committed({"a": 5, "b": 2}, {"a": 60, "b": 30}, stages=2)
    drawn_sample = draw_from(population, content)
    assert [(item.stage, item.stratum) for item in drawn_sample.items] == (
        [(1, "a")] * 5 + [(1, "b")] * 2 + [(2, "a")] * 5 + [(2, "b")] * 2
    )
    sequence = draw("3391.76,2026Q3,openings,a", 60, 10).items
    assert [item.ordinal for item in drawn_sample.items if item.stratum == "a"] == sequence
    assert [item.number for item in drawn_sample.of_stage(2)] == list(range(8, 15))
    single_stage, _content = committed({"a": 5, "b": 2}, {"a": 60, "b": 30})
    first = draw_from(single_stage, content)
    assert [item.line for item in first.items] == [item.line for item in drawn_sample.of_stage(1)]


def test_sample_of_whole_population_is_in_order_of_sampling_frame_for_any_seed() -> None:
    """The items of a census do not depend on the seed."""
    population, content = committed({NO_STRATUM: 12}, {NO_STRATUM: 12})
    drawn_sample = draw_from(population, content)
    assert [item.line for item in drawn_sample.items] == list(range(1, 13))
    assert drawn_sample.rejected == {NO_STRATUM: ()}
    assert draw_from(population, content, "another seed").items == drawn_sample.items


def test_items_of_stratum_that_is_drawn_completely_are_in_order_of_sampling_frame() -> None:
    """The items of the other strata are drawn with the seed."""
    population, content = committed({"few": 3, "many": 2}, {"few": 3, "many": 50})
    drawn_sample = draw_from(population, content)
    assert [item.ordinal for item in drawn_sample.items if item.stratum == "few"] == [1, 2, 3]
    assert [item.ordinal for item in drawn_sample.items if item.stratum == "many"] == (
        draw("3391.76,2026Q3,openings,many", 50, 2).items
    )


@pytest.mark.parametrize("sizes", [{NO_STRATUM: 40}, {"a": 40, "b": 40}])
def test_items_of_first_stage_differ_between_seeds_if_two_stages_draw_all_items(
    sizes: dict[str, int],
) -> None:
    """The seed, and not the frame, decides which half of the items is in the first stage."""
    half = {name: size // 2 for name, size in sizes.items()}
    population, content = committed(half, sizes, stages=2)
    firsts = set()
    for seed in ("seed one", "seed two", "seed three"):
        drawn_sample = draw_from(population, content, seed)
        assert sorted(item.line for item in drawn_sample.items) == list(
            range(1, population.items + 1)
        )
        firsts.add(tuple(sorted(item.line for item in drawn_sample.of_stage(1))))
    assert len(firsts) == 3


@pytest.mark.parametrize("strata", [{NO_STRATUM: 50}, {"a": 25, "b": 25}])
def test_draw_raises_control_failed_if_sampling_frame_lacks_a_drawn_item(
    strata: dict[str, int],
) -> None:
    """A frame without a drawn item cannot be the committed frame."""
    population, content = committed(strata, strata)
    lines = content.splitlines(keepends=True)
    with pytest.raises(ControlFailed, match="lacks drawn items"):
        draw_from(population, b"".join(lines[:-1]))


def test_sample_is_unchanged_after_it_is_written_and_read() -> None:
    """The names of the strata contain quotation marks, a backslash and Chinese characters."""
    population, content = committed({'"a,\\b': 2, "中": 2}, {'"a,\\b': 20, "中": 20})
    drawn_sample = draw_from(population, content)
    assert Sample.model_validate_json(drawn_sample.to_bytes()) == drawn_sample
    assert drawn_sample.to_bytes().endswith(b"}\n")


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.text("abc", max_size=3), st.integers(2, 60), min_size=1, max_size=4),
    st.integers(1, 2),
    st.text(min_size=1, max_size=10).filter(lambda text: text.isprintable()),
    st.data(),
)
def test_stages_have_planned_number_of_items_without_repetition(
    sizes: dict[str, int], stages: int, seed: str, data: st.DataObject
) -> None:
    """The test tries random strata, plans and seeds."""
    drawn = {
        name: data.draw(st.integers(0 if stages == 1 else 1, size // stages))
        for name, size in sizes.items()
    }
    population, content = committed(drawn, sizes, stages=stages)
    drawn_sample = draw_from(population, content, seed)
    assert (
        len({item.line for item in drawn_sample.items})
        == len(drawn_sample.items)
        == stages * population.plan.n
    )
    for stage in range(1, stages + 1):
        counts = dict.fromkeys(sizes, 0)
        for item in drawn_sample.of_stage(stage):
            counts[item.stratum] += 1
        assert counts == drawn
    for name, (items, rejected) in ordinals(seed, QUARTER, population).items():
        assert set(rejected) <= set(items) <= set(range(1, sizes[name] + 1))
