"""The commitment: what an audit will draw from and how, sealed before anybody knows the seed."""

from __future__ import annotations

import hashlib

from pydantic import AwareDatetime, BaseModel, ConfigDict

from include.evidence.folder import StoreFolder, Sums
from include.evidence.names import LARGEST_SUMS, SUMS
from include.policy.rates import ExactRate
from include.sampling.exact.selection import ALGORITHM
from include.sampling.names import COMMITMENT_FILE
from include.sampling.plans import Plan, PlanKind
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore

FORM = "parcelseal-commitment/1"


class Committed(BaseModel):
    """One population of a commitment.

    Attributes:
        population: its id in audit.yaml.
        file: of its frame in the bundle.
        sha256: hex digest of that file.
        items: how many lines it has.
        strata: items of each stratum by name, in the order in which they are drawn; one named
            ``""`` where there are none.
        stratified: whether the frame has a column of strata.
        tolerable: rate of deviations from which on the population is not accepted.
        expected: rate that is expected.
        confidence: one minus the risk of accepting what deviates at the tolerable rate.
        planned_as: the kind of plan that audit.yaml asks for.
        plan: what will be drawn.
        attributes: ids of what is tested.
    """

    model_config = ConfigDict(frozen=True)

    population: str
    file: str
    sha256: str
    items: int
    strata: dict[str, int]
    stratified: bool
    tolerable: ExactRate
    expected: ExactRate
    confidence: ExactRate
    planned_as: PlanKind
    plan: Plan
    attributes: tuple[str, ...]


class Commitment(BaseModel):
    """``commitment.json``.

    Attributes:
        form: of the file.
        audit: the quarter, ``2026Q3``.
        starts: its first moment.
        ends: the first moment after it.
        algorithm: of the selection, with its version.
        seed_source: which public value will be the seed, in English; named here so that nobody can
            choose another one when it is known.
        policy_hash: of the policy pack.
        code_version: of ParcelSeal.
        populations: what will be drawn from; those that are empty or could not be frozen are not
            among them.
    """

    model_config = ConfigDict(frozen=True)

    form: str = FORM
    audit: str
    starts: AwareDatetime
    ends: AwareDatetime
    algorithm: str = ALGORITHM
    seed_source: str
    policy_hash: str
    code_version: str
    populations: tuple[Committed, ...]

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def sealed_content(store: ObjectStore, sealed: Sealed) -> bytes | None:
    """Return commitment.json as it was sealed; None when its bundle is not the one that was.

    Args:
        store: the evidence store.
        sealed: by the ledger.
    """
    folder = StoreFolder(store, sealed.bundle)
    try:
        sums = folder.read(SUMS, LARGEST_SUMS)
        content = folder.read(COMMITMENT_FILE)
        digests = Sums.parse(sums).files
    except (ObjectMissing, ObjectDamaged, ValueError):
        return None
    own = hashlib.sha256(content).hexdigest()
    whole = hashlib.sha256(sums).hexdigest() == sealed.sums_sha256
    return content if whole and digests.get(COMMITMENT_FILE) == own else None


class Sealed(BaseModel):
    """Where a commitment was sealed.

    Attributes:
        bundle: folder of the commitment's own bundle in the evidence store.
        sums_sha256: hex digest of its SHA256SUMS, which the next bundle of the chain names.
        sealed_at: when the ledger took it; a seed has to be younger.
    """

    model_config = ConfigDict(frozen=True)

    bundle: str
    sums_sha256: str
    sealed_at: AwareDatetime
