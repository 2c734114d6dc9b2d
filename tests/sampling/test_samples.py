"""Samples: they follow from frame, plan and seed, and anybody draws them again."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.commitment import Committed, Plan
from include.sampling.exact.selection import draw
from include.sampling.frame import WHOLE
from include.sampling.samples import Sample, hashed_text, ordinals, sample
from include.services.errors import ControlFailed

SEED, QUARTER = "3391.76", "2026Q3"


def committed(
    drawn: dict[str, int], sizes: dict[str, int], *, stages: int = 1, **more: Any
) -> tuple[Committed, bytes]:
    """A population of these strata and its frame; strata take turns in it."""
    stratified = set(sizes) != {WHOLE}
    left, lines, number = dict(sizes), [], 0
    while any(left.values()):
        for name in sizes:
            if left[name]:
                left[name] -= 1
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
    given = {"population": "openings"} | more
    made = Committed(
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
        **given,
    )
    return made, content


def drawn_from(made: Committed, content: bytes, seed: str = SEED, audit: str = QUARTER) -> Sample:
    return sample(seed, audit, made, io.BytesIO(content))


def test_items_are_those_of_the_published_sampler() -> None:
    """Its text before the counter is seed, quarter and population; here it is worked out again."""
    made, content = committed({WHOLE: 5}, {WHOLE: 1000})
    found = drawn_from(made, content)
    by_hand = [
        1 + int(hashlib.sha256(f"3391.76,2026Q3,openings,{i}".encode()).hexdigest(), 16) % 1000
        for i in range(1, 6)
    ]
    assert [one.ordinal for one in found.items] == by_hand
    assert [one.key for one in found.items] == [f"k{n}" for n in by_hand]
    assert [one.number for one in found.items] == [1, 2, 3, 4, 5]
    assert {(one.stage, one.stratum) for one in found.items} == {(1, WHOLE)}
    assert (found.audit, found.population, found.frame_sha256) == (QUARTER, "openings", made.sha256)


def test_what_comes_again_is_kept_in_its_order() -> None:
    """Whoever draws again finds every digest that was passed over."""
    made, content = committed({WHOLE: 25}, {WHOLE: 30})
    found = drawn_from(made, content)
    again = draw("3391.76,2026Q3,openings", 30, 25)
    assert [one.ordinal for one in found.items] == again.items
    assert list(found.rejected[WHOLE]) == again.rejected
    assert again.rejected


def test_no_two_populations_strata_quarters_or_seeds_are_drawn_alike() -> None:
    """Each has a text of its own."""
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
        made, content = committed({WHOLE: 9}, {WHOLE: 5000}, population=name)
        drawn.append(tuple(one.line for one in drawn_from(made, content, seed, audit).items))
    assert len(set(drawn)) == len(drawn)


def test_every_stratum_has_a_sequence_of_its_own() -> None:
    """In the order of the commitment, numbered on."""
    made, content = committed({"b": 3, "a": 4}, {"b": 300, "a": 400})
    found = drawn_from(made, content)
    assert [one.stratum for one in found.items] == ["b"] * 3 + ["a"] * 4
    assert [one.number for one in found.items] == list(range(1, 8))
    for name, size, n in (("b", 300, 3), ("a", 400, 4)):
        expected = draw(f"3391.76,2026Q3,openings,{name}", size, n).items
        assert [one.ordinal for one in found.items if one.stratum == name] == expected
    for one in found.items:
        assert content.decode().split("\n")[one.line - 1] == f"{one.key}\t{one.stratum}"


def test_stages_follow_one_another() -> None:
    """The second one goes on in the sequence of each stratum: no item is looked at twice."""
    made, content = committed({"a": 5, "b": 2}, {"a": 60, "b": 30}, stages=2)
    found = drawn_from(made, content)
    assert [(one.stage, one.stratum) for one in found.items] == (
        [(1, "a")] * 5 + [(1, "b")] * 2 + [(2, "a")] * 5 + [(2, "b")] * 2
    )
    sequence = draw("3391.76,2026Q3,openings,a", 60, 10).items
    assert [one.ordinal for one in found.items if one.stratum == "a"] == sequence
    assert [one.number for one in found.of_stage(2)] == list(range(8, 15))
    alone, _content = committed({"a": 5, "b": 2}, {"a": 60, "b": 30})
    first = drawn_from(alone, content)
    assert [one.line for one in first.items] == [one.line for one in found.of_stage(1)]


def test_all_items_are_taken_in_the_order_of_the_frame() -> None:
    """There is nothing to draw: a census depends on no seed."""
    made, content = committed({WHOLE: 12}, {WHOLE: 12})
    found = drawn_from(made, content)
    assert [one.line for one in found.items] == list(range(1, 13))
    assert found.rejected == {WHOLE: ()}
    assert drawn_from(made, content, "another seed").items == found.items


def test_a_stratum_that_is_looked_at_whole_stands_beside_others() -> None:
    """Its items in their order; the others are drawn."""
    made, content = committed({"few": 3, "many": 2}, {"few": 3, "many": 50})
    found = drawn_from(made, content)
    assert [one.ordinal for one in found.items if one.stratum == "few"] == [1, 2, 3]
    assert [one.ordinal for one in found.items if one.stratum == "many"] == (
        draw("3391.76,2026Q3,openings,many", 50, 2).items
    )


@pytest.mark.parametrize("sizes", [{WHOLE: 40}, {"a": 40, "b": 40}])
def test_nobody_knows_the_first_stage_when_both_need_all_items(sizes: dict[str, int]) -> None:
    """Which half comes first follows from the seed too, not from the frame."""
    half = {name: size // 2 for name, size in sizes.items()}
    made, content = committed(half, sizes, stages=2)
    firsts = set()
    for seed in ("seed one", "seed two", "seed three"):
        found = drawn_from(made, content, seed)
        assert sorted(one.line for one in found.items) == list(range(1, made.items + 1))
        firsts.add(tuple(sorted(one.line for one in found.of_stage(1))))
    assert len(firsts) == 3


@pytest.mark.parametrize("strata", [{WHOLE: 50}, {"a": 25, "b": 25}])
def test_a_frame_that_lacks_what_was_drawn_is_refused(strata: dict[str, int]) -> None:
    """It is not the one that was committed to."""
    made, content = committed(strata, strata)
    lines = content.splitlines(keepends=True)
    with pytest.raises(ControlFailed, match="lacks items that were drawn"):
        drawn_from(made, b"".join(lines[:-1]))


def test_a_sample_is_read_back_as_it_was_written() -> None:
    """With odd strata too."""
    made, content = committed({'"a,\\b': 2, "中": 2}, {'"a,\\b': 20, "中": 20})
    found = drawn_from(made, content)
    assert Sample.model_validate_json(found.to_bytes()) == found
    assert found.to_bytes().endswith(b"}\n")


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.text("abc", max_size=3), st.integers(2, 60), min_size=1, max_size=4),
    st.integers(1, 2),
    st.text(min_size=1, max_size=10).filter(lambda text: text.isprintable()),
    st.data(),
)
def test_each_stage_has_its_items_and_none_comes_twice(
    sizes: dict[str, int], stages: int, seed: str, data: st.DataObject
) -> None:
    """Whatever the strata, the plan and the seed."""
    drawn = {
        name: data.draw(st.integers(0 if stages == 1 else 1, size // stages))
        for name, size in sizes.items()
    }
    made, content = committed(drawn, sizes, stages=stages)
    found = drawn_from(made, content, seed)
    assert len({one.line for one in found.items}) == len(found.items) == stages * made.plan.n
    for stage in range(1, stages + 1):
        counts = dict.fromkeys(sizes, 0)
        for one in found.of_stage(stage):
            counts[one.stratum] += 1
        assert counts == drawn
    for name, (items, rejected) in ordinals(seed, QUARTER, made).items():
        assert set(rejected) <= set(items) <= set(range(1, sizes[name] + 1))
