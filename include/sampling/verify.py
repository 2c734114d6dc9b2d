"""Repeat the draw of an evidence bundle, and compare the result with the bundle.

The comparison covers sampling frame, plan, seed, drawn items and rejected items. It needs only this
bundle. If the bundle in which the commitment was sealed is available, the commitments in the two
bundles are compared, too. The rates in the commitment are trusted. Everything else is repeated: the
digest of each frame is computed again, the plan is computed from the rates, and every item is drawn
again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from include.evidence.folder import SUMS, Folder
from include.sampling.commitment import Commitment, CommittedPopulation, Plan, plan_for
from include.sampling.exact.selection import ALGORITHM
from include.sampling.frame import NO_STRATUM, PIECE, unescape
from include.sampling.rules import COMMITMENT_FILE, SEED_FILE, sample_file
from include.sampling.samples import Sample, Seed, sample
from include.services.errors import ParcelSealError, UsageError
from include.services.objectstore.base import ObjectMissing

_SAMPLES = sample_file("").partition("/")[0] + "/"
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class RedrawnPopulation:
    """The repeated draw of a population, and its differences from the evidence bundle.

    Attributes:
        population: id of the population.
        items: number of items in the sampling frame.
        drawn: number of drawn items of all stages.
        rejected: number of draws that were rejected because their item had been drawn before.
        faults: differences between the repeated draw and the bundle; empty if the two do not
            differ.
    """

    population: str
    items: int
    drawn: int
    rejected: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Redraw:
    """The repeated draw of an evidence bundle, and its differences from the bundle.

    Attributes:
        audit: id of the audited quarter.
        seed: the seed as entered.
        populations: repeated draws of the populations.
        faults: differences that do not belong to a single population.
        commitment_sha256: hex digest of commitment.json, to be compared with the digest that the
            auditor noted before the draw.
        commitment_seen: whether the bundle of the commitment was available.
    """

    audit: str
    seed: str
    populations: tuple[RedrawnPopulation, ...]
    faults: tuple[str, ...]
    commitment_sha256: str
    commitment_seen: bool

    @property
    def matches(self) -> bool:
        """Whether the repeated draw equals the draw in the bundle, so that there are no faults."""
        return not self.faults and not any(population.faults for population in self.populations)


def redraw(
    folder: Folder, find_bundle: Callable[[str], Folder | None] = lambda _name: None
) -> Redraw:
    """Repeat the draw of an evidence bundle, and compare the result with the bundle.

    Args:
        folder: folder of the bundle.
        find_bundle: returns the bundle of the commitment by its folder name, or None if that bundle
            is not available.

    Raises:
        UsageError: the folder is not a bundle of `sample_audit` with a draw.
    """
    commitment = _read(folder, COMMITMENT_FILE, Commitment)
    seed = _read(folder, SEED_FILE, Seed)
    faults = []
    if commitment.algorithm != ALGORITHM:
        faults.append(f"{commitment.algorithm} drew the bundle; this version has {ALGORITHM}")
    if seed.published_at <= seed.commitment.sealed_at:
        faults.append(
            f"the seed was published at {seed.published_at.isoformat()}, before the commitment was "
            f"sealed at {seed.commitment.sealed_at.isoformat()}"
        )
    earlier = find_bundle(seed.commitment.bundle)
    if earlier is not None:
        faults += _commitment_faults(folder, earlier, seed)
    named = {sample_file(population.population) for population in commitment.populations}
    present = folder.names()
    unnamed = {name for name in present if name.startswith(_SAMPLES)} - named
    faults += [f"the commitment has no population of {name}" for name in sorted(unnamed)]
    populations = tuple(
        _redraw_population(folder, present, commitment, population, seed)
        for population in commitment.populations
    )
    digest = hashlib.sha256(folder.read(COMMITMENT_FILE)).hexdigest()
    return Redraw(
        commitment.audit, seed.seed, populations, tuple(faults), digest, earlier is not None
    )


def _commitment_faults(folder: Folder, earlier: Folder, seed: Seed) -> Iterator[str]:
    """Yield the differences between a bundle's commitment and the earlier sealed commitment.

    Args:
        folder: folder of the bundle with the draw.
        earlier: folder of the bundle in which the commitment was sealed before the seed was
            entered.
        seed: seed of the draw.
    """
    try:
        sums, sealed = earlier.read(SUMS), earlier.read(COMMITMENT_FILE)
    except ObjectMissing:
        yield "the bundle of the commitment lacks files"
        return
    if hashlib.sha256(sums).hexdigest() != seed.commitment.sums_sha256:
        yield "the bundle of the commitment differs from the one that was sealed before the seed"
    if sealed != folder.read(COMMITMENT_FILE):
        yield "the commitment differs from the one that was sealed before the seed was known"


def _redraw_population(
    folder: Folder,
    present: set[str],
    commitment: Commitment,
    committed: CommittedPopulation,
    seed: Seed,
) -> RedrawnPopulation:
    if committed.file not in present:  # do not open a file that the bundle does not list
        return RedrawnPopulation(
            committed.population, committed.items, 0, 0, ("its frame is missing",)
        )
    faults = list(_frame_faults(folder, committed))
    if not _adds_up(committed):
        return RedrawnPopulation(
            committed.population, committed.items, 0, 0, (*faults, "its strata do not add up")
        )
    if _planned(committed) != committed.plan:
        faults.append("the plan differs from the plan for its rates")
    try:
        bundled = Sample.model_validate_json(folder.read(sample_file(committed.population)))
        with folder.open(committed.file) as frame:
            repeated = sample(seed.seed, commitment.audit, committed, frame)
    except (ParcelSealError, ValueError):  # missing or invalid sample, or invalid text
        return RedrawnPopulation(
            committed.population, committed.items, 0, 0, (*faults, "the draw cannot be repeated")
        )
    if bundled.items != repeated.items:
        faults.append("the repeated draw has other items than the bundle")
    if bundled.rejected != repeated.rejected:
        faults.append("the repeated draw rejects other items than the bundle")
    if bundled != repeated and not faults:
        faults.append("the sample names another audit, population or frame")
    rejected = sum(map(len, repeated.rejected.values()))
    return RedrawnPopulation(
        committed.population, committed.items, len(repeated.items), rejected, tuple(faults)
    )


def _adds_up(committed: CommittedPopulation) -> bool:
    """Return whether the strata in a commitment fit its sampling plan and its number of items.

    The strata must have the names that the sampling plan has. No stratum may be empty, and the
    sizes must add up to the number of items. Without strata, the only name must be ``NO_STRATUM``.
    """
    names = set(committed.strata)
    return (
        names == set(committed.plan.drawn)
        and (committed.stratified or names == {NO_STRATUM})
        and all(size > 0 for size in committed.strata.values())
        and sum(committed.strata.values()) == committed.items
    )


def _planned(committed: CommittedPopulation) -> Plan | None:
    """Compute the sampling plan of a population from its rates in the commitment.

    Return None if there is no such plan. This is the case if the kind of plan requires an expected
    rate of 0 and the rate is another, or if no sample can prove that the deviation rate is below
    the tolerable rate.
    """
    if committed.expected and committed.planned_as != "single":
        return None
    try:
        return plan_for(
            committed.planned_as,
            committed.tolerable,
            committed.expected,
            committed.confidence,
            committed.strata,
            stratified=committed.stratified,
        )
    except ParcelSealError:
        return None


def _frame_faults(folder: Folder, committed: CommittedPopulation) -> Iterator[str]:
    """Yield the differences of a sampling frame from the commitment: in digest and item counts."""
    digest, lines = hashlib.sha256(), 0
    strata: dict[str, int] = {}
    rest = b""
    with folder.open(committed.file) as frame:
        while piece := frame.read(PIECE):
            digest.update(piece)
            *whole, rest = (rest + piece).split(b"\n")
            lines += len(whole)
            for line in whole if committed.stratified else ():
                name = unescape(line.partition(b"\t")[2].decode(errors="replace"))
                strata[name] = strata.get(name, 0) + 1
    if digest.hexdigest() != committed.sha256:
        yield "the frame differs from the committed frame"
    if lines != committed.items or (committed.stratified and strata != committed.strata):
        yield "the frame has other numbers of items than the commitment"


def _read(folder: Folder, name: str, form: type[Form]) -> Form:
    try:
        return form.model_validate_json(folder.read(name))
    except ObjectMissing:
        raise UsageError(
            f"{name} is missing: the folder is not a bundle of a drawn audit sample.",
            "Name the folder of a bundle of sample_audit.",
        ) from None
    except ValidationError:
        raise UsageError(f"{name} is not in a format that ParcelSeal writes.") from None
