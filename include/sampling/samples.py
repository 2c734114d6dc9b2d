"""Draw a committed population by a public seed that is used once, so that anybody can repeat it.

The text that is hashed before Rivest's counter is ``seed,audit,population``, and ``,stratum`` where
there are strata, so that no two populations, strata or quarters are drawn alike. A stratum of which
everything is drawn in a single stage is taken in the order of the frame; of two stages that need
everything, the seed says which items come first. Every stratum's stages follow one another in its
own sequence; items are numbered by stage, then by stratum, then as they were drawn.
"""

from __future__ import annotations

import secrets
import unicodedata
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from include.frozen import FrozenModel
from include.messages import Message, _
from include.sampling.commitment import Committed, Sealed
from include.sampling.exact.selection import draw
from include.sampling.frame import Source, pick
from include.services.errors import ControlFailed

LONGEST = 200  # characters
SHORTEST = 4  # characters that are no blanks
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")
STAND_IN = "Stand-in for the source that was named:"
LEEWAY = timedelta(minutes=5)  # by which clocks may differ


class Cause(StrEnum):
    """Why a seed was refused."""

    NONE = "none"
    LONG = "long"
    UNREADABLE = "unreadable"
    NO_SOURCE = "no_source"
    NO_TIME = "no_time"
    OLDER = "older"
    FUTURE = "future"
    USED = "used"
    STRANGER = "stranger"


class Seed(FrozenModel):
    """``seed.json``.

    Attributes:
        seed: the text whose UTF-8 bytes count, without blanks around it.
        source: where it was read, in the auditor's words.
        published_at: when the source made it known, by the auditor.
        entered_by: user id of the auditor.
        entered_at: when it was entered.
        commitment: where what it draws from was sealed before.
    """

    seed: str
    source: str
    published_at: AwareDatetime
    entered_by: str
    entered_at: AwareDatetime
    commitment: Sealed

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def fault_of(
    seed: str,
    source: str,
    published_at: datetime | None,
    *,
    sealed_at: datetime,
    now: datetime,
    used: bool,
) -> Cause | None:
    """Return why a seed is refused, or None if it is valid.

    Args:
        seed: as entered, without blanks around it.
        source: as entered, likewise.
        published_at: as entered; None when it is no moment with an offset from UTC.
        sealed_at: when the commitment was sealed.
        now: the moment.
        used: whether a draw was made with it before: then it was known before the commitment.
    """
    if len("".join(seed.split())) < SHORTEST:
        return Cause.NONE
    if len(seed) > LONGEST:
        return Cause.LONG
    if readable(seed) != seed:
        return Cause.UNREADABLE
    if not source:
        return Cause.NO_SOURCE
    if published_at is None:
        return Cause.NO_TIME
    if published_at <= sealed_at:
        return Cause.OLDER
    if published_at > now + LEEWAY:
        return Cause.FUTURE
    return Cause.USED if used else None


def readable(text: str) -> str:
    """Return a text with ``·`` for invisible characters: controls, marks, unusual blanks."""
    return "".join(
        "·" if unicodedata.category(character) in _UNSEEN and character != " " else character
        for character in text
    )


def why(cause: Cause) -> Message:
    """Return the reason of a refusal for people."""
    match cause:
        case Cause.NONE:
            return _("the seed is empty or has fewer than {count} characters", count=SHORTEST)
        case Cause.LONG:
            return _("the seed has more than {count} characters", count=LONGEST)
        case Cause.UNREADABLE:
            return _("the seed has characters that nobody sees, such as a line feed")
        case Cause.NO_SOURCE:
            return _("it is not said where the seed was read")
        case Cause.NO_TIME:
            return _("the time of publication is no moment with an offset from UTC")
        case Cause.OLDER:
            return _("the seed was known before the commitment was sealed")
        case Cause.FUTURE:
            return _("the time of publication lies in the future")
        case Cause.USED:
            return _("the seed was used before")
        case Cause.STRANGER:
            return _("whoever entered it is no auditor")


def in_advance(words: str, at: datetime, command: str) -> dict[str, str]:
    """Return the filled form of a stand-in for a seed; the evidence marks it as such.

    Args:
        words: the seed; throws of dice if it is empty, since the sample company has no source.
        at: the moment of publication.
        command: sentence that names the command which gives the answer.
    """
    source = command
    if not words.strip():
        words = " ".join(str(secrets.randbelow(6) + 1) for _die in range(20))
        source = f"20 dice thrown by this machine. {command}"
    return {"seed": words, "source": f"{STAND_IN} {source}", "published_at": at.isoformat()}


def moment_of(text: str, fallback: datetime) -> datetime | None:
    """Read a time of publication; without an offset it is in the zone of ``fallback``.

    Args:
        text: ISO 8601, as Airflow's form gives it.
        fallback: a moment in the pack's timezone.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=fallback.tzinfo)


FORM = "parcelseal-sample/1"


class Drawn(FrozenModel):
    """One item of a sample.

    Attributes:
        number: from 1, in the order of the workpapers.
        stage: from 1.
        line: its place in the frame, from 1.
        ordinal: its place in its stratum, from 1.
        key: the population's id of it.
        stratum: its stratum; empty where there are none.
    """

    number: int
    stage: int
    line: int
    ordinal: int
    key: str
    stratum: str


class Sample(FrozenModel):
    """``samples/<population>.json``.

    Attributes:
        form: of the file.
        audit: the quarter.
        population: its id in audit.yaml.
        frame_sha256: hex digest of the frame that was drawn from.
        items: what was drawn, of all stages.
        rejected: by stratum, ordinals that came again, in the order in which they did.
    """

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
        return [item for item in self.items if item.stage == stage]


def hashed_text(seed: str, audit: str, population: str, stratum: str, *, stratified: bool) -> str:
    """Return the text before the counter of the sampler."""
    return ",".join([seed, audit, population, *([stratum] if stratified else [])])


def ordinals(seed: str, audit: str, committed: Committed) -> dict[str, tuple[list[int], list[int]]]:
    """Return by stratum the ordinals drawn in all stages and the rejected repetitions."""
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
        (item.stratum, item.ordinal): item
        for item in pick(frame, wanted, stratified=committed.stratified)
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
                item = vars(picked[stratum, ordinal])
                items.append(Drawn(number=len(items) + 1, stage=stage + 1, **item))
    return Sample(
        audit=audit,
        population=committed.population,
        frame_sha256=committed.sha256,
        items=tuple(items),
        rejected={stratum: tuple(again) for stratum, (_items, again) in drawn.items()},
    )
