"""Drawing a committed population by the seed, and what anybody needs to do it again.

The text that is hashed before Rivest's counter is ``seed,audit,population``, and ``,stratum`` where
there are strata, so that no two populations, strata or quarters are drawn alike. A stratum of which
everything is drawn in a single stage is taken in the order of the frame; of two stages that need
everything, the seed says which items come first. Every stratum's stages follow one another in its
own sequence; items are numbered by stage, then by stratum, then as they were drawn.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from include.sampling.commitment import Committed
from include.sampling.exact.selection import draw
from include.sampling.frame import Item, Source, pick
from include.services.errors import ControlFailed

FORM = "parcelseal-sample/1"


class Drawn(BaseModel):
    """One item of a sample.

    Attributes:
        number: from 1, in the order of the workpapers.
        stage: from 1.
        line: its place in the frame, from 1.
        ordinal: its place in its stratum, from 1.
        key: the population's id of it.
        stratum: its stratum; empty where there are none.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    stage: int
    line: int
    ordinal: int
    key: str
    stratum: str


class Sample(BaseModel):
    """``samples/<population>.json``.

    Attributes:
        form: of the file.
        audit: the quarter.
        population: its id in audit.yaml.
        frame_sha256: hex digest of the frame that was drawn from.
        items: what was drawn, of all stages.
        rejected: by stratum, ordinals that came again, in the order in which they did.
    """

    model_config = ConfigDict(frozen=True)

    form: str = FORM
    audit: str
    population: str
    frame_sha256: str
    items: tuple[Drawn, ...]
    rejected: dict[str, tuple[int, ...]]

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def of_stage(self, stage: int) -> list[Drawn]:
        """The items of one stage."""
        return [one for one in self.items if one.stage == stage]


def hashed_text(seed: str, audit: str, population: str, stratum: str, *, stratified: bool) -> str:
    """Return the text before the counter of the sampler."""
    return ",".join([seed, audit, population, *([stratum] if stratified else [])])


def ordinals(seed: str, audit: str, committed: Committed) -> dict[str, tuple[list[int], list[int]]]:
    """Return by stratum what is drawn of it in all stages, and what came again."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for stratum, size in committed.strata.items():
        wanted = committed.plan.drawn[stratum] * committed.plan.stages
        if wanted == size and committed.plan.stages == 1:
            found[stratum] = (list(range(1, size + 1)), [])
            continue
        text = hashed_text(
            seed, audit, committed.population, stratum, stratified=committed.stratified
        )
        drawing = draw(text, size, wanted)
        found[stratum] = (drawing.items, drawing.rejected)
    return found


def sample(seed: str, audit: str, committed: Committed, frame: Source) -> Sample:
    """Draw a population.

    Args:
        seed: as it was entered.
        audit: the quarter.
        committed: of the commitment.
        frame: its bytes.

    Raises:
        ControlFailed: the frame is not the one that was committed to.
    """
    drawn = ordinals(seed, audit, committed)
    wanted = {stratum: set(items) for stratum, (items, _rejected) in drawn.items()}
    picked = {
        (one.stratum, one.ordinal): one
        for one in pick(frame, wanted, stratified=committed.stratified)
    }
    if len(picked) != sum(map(len, wanted.values())):
        raise ControlFailed(
            f"The frame of {committed.population} lacks items that were drawn: it is not the one "
            "that was committed to.",
            "Start a new run; keep the file and find out who changed it.",
        )
    items: list[Drawn] = []
    for stage in range(committed.plan.stages):
        for stratum, (chosen, _rejected) in drawn.items():
            size = committed.plan.drawn[stratum]
            for ordinal in chosen[stage * size : (stage + 1) * size]:
                items.append(_drawn(len(items) + 1, stage + 1, picked[stratum, ordinal]))
    return Sample(
        audit=audit,
        population=committed.population,
        frame_sha256=committed.sha256,
        items=tuple(items),
        rejected={stratum: tuple(again) for stratum, (_items, again) in drawn.items()},
    )


def _drawn(number: int, stage: int, item: Item) -> Drawn:
    return Drawn(
        number=number,
        stage=stage,
        line=item.line,
        ordinal=item.ordinal,
        key=item.key,
        stratum=item.stratum,
    )
