"""Draw the sample of a committed population with a public seed; anybody can repeat the draw.

Rivest's sampler hashes a text together with a counter. The text is ``seed,audit,population``; if
the population has strata, ``,stratum`` follows. So every population, stratum and quarter has a
different draw.

The stages of a stratum are drawn one after the other from one sequence. If a plan with a single
stage draws all items of a stratum, the items keep the order of the sampling frame. If a plan with
two stages draws all of them, the seed decides the order. Items are numbered by stage, within a
stage by stratum, and within a stratum in the order of the draw.
"""

from __future__ import annotations

import secrets
import unicodedata
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from include.frozen import FrozenModel
from include.messages import Message, _
from include.sampling.commitment import CommitmentLocation, CommittedPopulation
from include.sampling.exact.selection import draw
from include.sampling.frame import Source, pick
from include.services.errors import ControlFailed

LONGEST = 200  # characters
SHORTEST = 4  # characters without white space
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")
STAND_IN = "Stand-in for the source that was named:"
LEEWAY = timedelta(minutes=5)  # tolerated difference between clocks


class SeedRefusalCause(StrEnum):
    """The reason for which a random seed was refused.

    Attributes:
        TOO_SHORT: the seed is empty or too short.
        TOO_LONG: the seed is too long.
        UNREADABLE: the seed contains an invisible character.
        NO_SOURCE: the publication is missing.
        NO_TIME: the time of publication is missing or not valid.
        BEFORE_SEAL: the seed was published before the commitment was sealed.
        FUTURE: the time of publication is in the future.
        USED: an earlier draw used the seed.
        NOT_AN_AUDITOR: the person who entered the seed is not an auditor.
    """

    TOO_SHORT = "none"
    TOO_LONG = "long"
    UNREADABLE = "unreadable"
    NO_SOURCE = "no_source"
    NO_TIME = "no_time"
    BEFORE_SEAL = "older"
    FUTURE = "future"
    USED = "used"
    NOT_AN_AUDITOR = "stranger"


class Seed(FrozenModel):
    """The random seed of a draw, as the file ``seed.json`` states it.

    Attributes:
        seed: text of the seed, without leading and trailing spaces. Its UTF-8 bytes are hashed.
        source: publication in which the auditor read the seed, in the auditor's words.
        published_at: time at which the seed was published, as the auditor stated it.
        entered_by: user id of the auditor.
        entered_at: time at which the auditor entered the seed.
        commitment: location of the commitment that was sealed before the seed was entered.
    """

    seed: str
    source: str
    published_at: AwareDatetime
    entered_by: str
    entered_at: AwareDatetime
    commitment: CommitmentLocation

    @property
    def is_stand_in(self) -> bool:
        """Whether the seed replaces the announced source, as it does in the sample company."""
        return self.source.startswith(STAND_IN)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file ``seed.json``."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def seed_refusal_cause(
    seed: str,
    source: str,
    published_at: datetime | None,
    *,
    sealed_at: datetime,
    now: datetime,
    used: bool,
) -> SeedRefusalCause | None:
    """Return why a random seed is refused, or None if the seed is valid.

    Args:
        seed: the seed as entered, without leading and trailing spaces.
        source: the publication as entered, without leading and trailing spaces.
        published_at: time of publication; None if the auditor did not enter a valid time.
        sealed_at: time at which the commitment was sealed.
        now: current time.
        used: whether an earlier draw used the seed. Such a seed was known before the commitment.
    """
    if len("".join(seed.split())) < SHORTEST:
        return SeedRefusalCause.TOO_SHORT
    if len(seed) > LONGEST:
        return SeedRefusalCause.TOO_LONG
    if readable(seed) != seed:
        return SeedRefusalCause.UNREADABLE
    if not source:
        return SeedRefusalCause.NO_SOURCE
    if published_at is None:
        return SeedRefusalCause.NO_TIME
    if published_at <= sealed_at:
        return SeedRefusalCause.BEFORE_SEAL
    if published_at > now + LEEWAY:
        return SeedRefusalCause.FUTURE
    return SeedRefusalCause.USED if used else None


def readable(text: str) -> str:
    """Return a text in which each invisible character is replaced with ``·``."""
    return "".join(
        "·" if unicodedata.category(character) in _UNSEEN and character != " " else character
        for character in text
    )


def refusal_message(cause: SeedRefusalCause) -> Message:
    """Return the reason for which a random seed was refused, as a message."""
    match cause:
        case SeedRefusalCause.TOO_SHORT:
            return _("the seed is empty or has fewer than {count} characters", count=SHORTEST)
        case SeedRefusalCause.TOO_LONG:
            return _("the seed has more than {count} characters", count=LONGEST)
        case SeedRefusalCause.UNREADABLE:
            return _("the seed has invisible characters, such as a line feed")
        case SeedRefusalCause.NO_SOURCE:
            return _("the place of publication is missing")
        case SeedRefusalCause.NO_TIME:
            return _("the time of publication is not a valid date with time")
        case SeedRefusalCause.BEFORE_SEAL:
            return _("the seed was published before the commitment was sealed")
        case SeedRefusalCause.FUTURE:
            return _("the time of publication is in the future")
        case SeedRefusalCause.USED:
            return _("an earlier draw used the same seed")
        case SeedRefusalCause.NOT_AN_AUDITOR:
            return _("the person who entered the random seed is not an auditor")


def demonstration_answer(words: str, at: datetime, command: str) -> dict[str, str]:
    """Return a completed seed form for a demonstration, with a seed that was not published.

    The field *source* of the form states that the seed is not from a public source.

    Args:
        words: the seed. If it is empty, the seed is the result of 20 simulated dice.
        at: time that the form states as the time of publication.
        command: sentence for the field *source*; it names the command that submits the form.
    """
    source = command
    if not words.strip():
        words = " ".join(str(secrets.randbelow(6) + 1) for _die in range(20))
        source = f"20 dice thrown by this machine. {command}"
    return {"seed": words, "source": f"{STAND_IN} {source}", "published_at": at.isoformat()}


def moment_of(text: str, fallback: datetime) -> datetime | None:
    """Parse a time of publication; return None if the text is not a time.

    Args:
        text: time in ISO 8601, as Airflow's form returns it.
        fallback: any time in the policy pack's timezone. Its timezone is used if the text has no
            UTC offset.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=fallback.tzinfo)


FORM = "parcelseal-sample/1"


class SampleItem(FrozenModel):
    """An item that was drawn from a population.

    Attributes:
        number: position of the item in the sample of its population, from 1. The count continues
            over all stages.
        stage: stage in which the item is tested; the first stage is 1.
        line: number of the item's line in the sampling frame, from 1.
        ordinal: position of the item in its stratum, from 1.
        key: id of the item in the population.
        stratum: name of the item's stratum; empty without strata.
    """

    number: int
    stage: int
    line: int
    ordinal: int
    key: str
    stratum: str


class Sample(FrozenModel):
    """The sample of a population, as the file ``samples/<population>.json`` states it.

    Attributes:
        form: format of the file.
        audit: id of the audited quarter.
        population: id of the population in audit.yaml.
        frame_sha256: hex digest of the sampling frame.
        items: drawn items of all stages.
        rejected: stratum -> ordinals that were drawn a second time and rejected, in the order of
            the draw. An ordinal is the position of an item in its stratum.
    """

    form: str = FORM
    audit: str
    population: str
    frame_sha256: str
    items: tuple[SampleItem, ...]
    rejected: dict[str, tuple[int, ...]]

    def to_bytes(self) -> bytes:
        """Return the bytes of the file ``samples/<population>.json``."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def of_stage(self, stage: int) -> list[SampleItem]:
        """Return the drawn items of one stage; the first stage is 1."""
        return [item for item in self.items if item.stage == stage]


def hashed_text(seed: str, audit: str, population: str, stratum: str, *, stratified: bool) -> str:
    """Return the text that Rivest's sampler hashes together with a counter.

    The text is ``seed,audit,population``. If the population has strata, ``,stratum`` follows.

    Args:
        seed: text of the seed.
        audit: id of the audited quarter.
        population: id of the population.
        stratum: name of the stratum; not used if `stratified` is False.
        stratified: whether the population has strata.
    """
    return ",".join([seed, audit, population, *([stratum] if stratified else [])])


def ordinals(
    seed: str, audit: str, committed: CommittedPopulation
) -> dict[str, tuple[list[int], list[int]]]:
    """Draw the items of all stages; return stratum -> (drawn ordinals, rejected ordinals).

    An ordinal is the position of an item in its stratum. A draw is rejected if its ordinal was
    drawn before.

    Args:
        seed: text of the seed.
        audit: id of the audited quarter.
        committed: the population in the commitment.
    """
    by_stratum: dict[str, tuple[list[int], list[int]]] = {}
    for stratum, size in committed.strata.items():
        count = committed.plan.drawn[stratum] * committed.plan.stages
        if count == size and committed.plan.stages == 1:
            by_stratum[stratum] = (list(range(1, size + 1)), [])
            continue
        text = hashed_text(
            seed, audit, committed.population, stratum, stratified=committed.stratified
        )
        drawing = draw(text, size, count)
        by_stratum[stratum] = (drawing.items, drawing.rejected)
    return by_stratum


def sample(seed: str, audit: str, committed: CommittedPopulation, frame: Source) -> Sample:
    """Draw the sample of a population from its sampling frame.

    Args:
        seed: the seed as entered.
        audit: id of the audited quarter.
        committed: the population in the commitment.
        frame: sampling frame, open for reading.

    Raises:
        ControlFailed: the sampling frame lacks drawn items, so it differs from the committed frame.
    """
    drawn = ordinals(seed, audit, committed)
    ordinals_by_stratum = {stratum: set(items) for stratum, (items, _rejected) in drawn.items()}
    picked = {
        (item.stratum, item.ordinal): item
        for item in pick(frame, ordinals_by_stratum, stratified=committed.stratified)
    }
    if len(picked) != sum(map(len, ordinals_by_stratum.values())):
        raise ControlFailed(
            f"The frame of {committed.population} lacks drawn items: it differs from the committed "
            "frame.",
            "Keep the changed file, find out who changed it, and start a new run.",
        )
    items: list[SampleItem] = []
    for stage in range(committed.plan.stages):
        for stratum, (chosen, _rejected) in drawn.items():
            size = committed.plan.drawn[stratum]
            for ordinal in chosen[stage * size : (stage + 1) * size]:
                item = vars(picked[stratum, ordinal])
                items.append(SampleItem(number=len(items) + 1, stage=stage + 1, **item))
    return Sample(
        audit=audit,
        population=committed.population,
        frame_sha256=committed.sha256,
        items=tuple(items),
        rejected={stratum: tuple(again) for stratum, (_items, again) in drawn.items()},
    )
