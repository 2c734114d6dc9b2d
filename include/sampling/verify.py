"""Draw the samples of a bundle again: frame, plan, seed, items and rejections.

Needs the bundle alone, and holds it against the commitment's own bundle where that is at hand. Only
the rates of the commitment are believed: the digest of each frame is computed, the plan is made
anew from the rates, and every item is drawn again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from include.evidence.folder import SUMS, Folder
from include.sampling.commitment import Commitment, Committed, Plan, plan_for
from include.sampling.exact.selection import ALGORITHM
from include.sampling.frame import PIECE, WHOLE, plain
from include.sampling.rules import COMMITMENT_FILE, SEED_FILE, sample_file
from include.sampling.samples import Sample, Seed, sample
from include.services.errors import ParcelSealError, UsageError
from include.services.objectstore.base import ObjectMissing

_SAMPLES = sample_file("").partition("/")[0] + "/"
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Redrawn:
    """One population that was drawn again.

    Attributes:
        population: its id.
        items: of its frame.
        drawn: items of all stages.
        rejected: draws that came again.
        faults: what is not as the bundle says; empty when all is.
    """

    population: str
    items: int
    drawn: int
    rejected: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Redraw:
    """A bundle that was drawn again.

    Attributes:
        audit: the quarter.
        seed: as it was entered.
        populations: one by one.
        faults: of the bundle as a whole.
        commitment_sha256: hex digest of commitment.json, which the auditor wrote down.
        commitment_seen: whether the bundle in which it was sealed before was at hand.
    """

    audit: str
    seed: str
    populations: tuple[Redrawn, ...]
    faults: tuple[str, ...]
    commitment_sha256: str
    commitment_seen: bool

    @property
    def holds(self) -> bool:
        """Whether everything is as the bundle says."""
        return not self.faults and not any(population.faults for population in self.populations)


def redraw(folder: Folder, beside: Callable[[str], Folder | None] = lambda _name: None) -> Redraw:
    """Draw a bundle again.

    Args:
        folder: of the bundle.
        beside: finds another bundle of the store by its folder; None where it is not at hand.

    Raises:
        UsageError: it is no bundle of `sample_audit` that drew anything.
    """
    made = _read(folder, COMMITMENT_FILE, Commitment)
    seed = _read(folder, SEED_FILE, Seed)
    faults = []
    if made.algorithm != ALGORITHM:
        faults.append(f"it was drawn by {made.algorithm}; this is {ALGORITHM}")
    if seed.published_at <= seed.commitment.sealed_at:
        faults.append(
            f"the seed was known at {seed.published_at.isoformat()}, before the commitment was "
            f"sealed at {seed.commitment.sealed_at.isoformat()}"
        )
    earlier = beside(seed.commitment.bundle)
    if earlier is not None:
        faults += _commitment_faults(folder, earlier, seed)
    named = {sample_file(population.population) for population in made.populations}
    present = folder.names()
    unnamed = {name for name in present if name.startswith(_SAMPLES)} - named
    faults += [f"nothing says what {name} was drawn from" for name in sorted(unnamed)]
    populations = tuple(
        _redrawn(folder, present, made, population, seed) for population in made.populations
    )
    digest = hashlib.sha256(folder.read(COMMITMENT_FILE)).hexdigest()
    return Redraw(made.audit, seed.seed, populations, tuple(faults), digest, earlier is not None)


def _commitment_faults(folder: Folder, earlier: Folder, seed: Seed) -> Iterator[str]:
    """Compare the commitment with the one that was sealed before the seed was known."""
    try:
        sums, sealed = earlier.read(SUMS), earlier.read(COMMITMENT_FILE)
    except ObjectMissing:
        yield "the bundle of the commitment lacks what was committed to"
        return
    if hashlib.sha256(sums).hexdigest() != seed.commitment.sums_sha256:
        yield "the bundle of the commitment is not the one that was sealed before the seed"
    if sealed != folder.read(COMMITMENT_FILE):
        yield "the commitment is not the one that was sealed before the seed was known"


def _redrawn(
    folder: Folder, present: set[str], made: Commitment, one: Committed, seed: Seed
) -> Redrawn:
    if one.file not in present:  # nor is anything opened that is no file of the bundle
        return Redrawn(one.population, one.items, 0, 0, ("its frame is missing",))
    faults = list(_frame_faults(folder, one))
    if not _adds_up(one):
        return Redrawn(one.population, one.items, 0, 0, (*faults, "its strata do not add up"))
    if _planned(one) != one.plan:
        faults.append("the plan does not follow from its rates")
    try:
        told = Sample.model_validate_json(folder.read(sample_file(one.population)))
        with folder.open(one.file) as frame:
            again = sample(seed.seed, made.audit, one, frame)
    except (ParcelSealError, ValueError):  # no sample, a faulty one, bytes that are no text
        return Redrawn(one.population, one.items, 0, 0, (*faults, "it cannot be drawn again"))
    if told.items != again.items:
        faults.append("other items are drawn than the bundle names")
    if told.rejected != again.rejected:
        faults.append("other draws are rejected than the bundle names")
    if told != again and not faults:
        faults.append("the sample names another audit, population or frame")
    rejected = sum(map(len, again.rejected.values()))
    return Redrawn(one.population, one.items, len(again.items), rejected, tuple(faults))


def _adds_up(one: Committed) -> bool:
    """Whether there are the items that the strata say, and the plan draws from these strata."""
    named = set(one.strata)
    return (
        named == set(one.plan.drawn)
        and (one.stratified or named == {WHOLE})
        and all(size > 0 for size in one.strata.values())
        and sum(one.strata.values()) == one.items
    )


def _planned(one: Committed) -> Plan | None:
    """Make the plan anew; None where audit.yaml could not have asked for it."""
    if one.expected and one.planned_as != "single":
        return None
    try:
        return plan_for(
            one.planned_as,
            one.tolerable,
            one.expected,
            one.confidence,
            one.strata,
            stratified=one.stratified,
        )
    except ParcelSealError:
        return None


def _frame_faults(folder: Folder, one: Committed) -> Iterator[str]:
    """Compare a frame with what was committed to: digest, lines, strata."""
    digest, lines = hashlib.sha256(), 0
    strata: dict[str, int] = {}
    rest = b""
    with folder.open(one.file) as frame:
        while piece := frame.read(PIECE):
            digest.update(piece)
            *whole, rest = (rest + piece).split(b"\n")
            lines += len(whole)
            for line in whole if one.stratified else ():
                name = plain(line.partition(b"\t")[2].decode(errors="replace"))
                strata[name] = strata.get(name, 0) + 1
    if digest.hexdigest() != one.sha256:
        yield "the frame is not the one that was committed to"
    if lines != one.items or (one.stratified and strata != one.strata):
        yield "the frame has other numbers of items than were committed to"


def _read(folder: Folder, name: str, form: type[Form]) -> Form:
    try:
        return form.model_validate_json(folder.read(name))
    except ObjectMissing:
        raise UsageError(
            f"There is no {name}: this is no bundle of a drawn audit sample.",
            "Name the folder of a bundle of sample_audit.",
        ) from None
    except ValidationError:
        raise UsageError(f"{name} is not one that ParcelSeal writes.") from None
