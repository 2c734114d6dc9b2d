"""Seeds: taken from a public source after the commitment, and never twice."""

from __future__ import annotations

import secrets
import unicodedata
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict

from include.messages import Message, _
from include.sampling.commitment import Sealed

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


class Seed(BaseModel):
    """``seed.json``.

    Attributes:
        seed: the text whose UTF-8 bytes count, without blanks around it.
        source: where it was read, in the auditor's words.
        published_at: when the source made it known, by the auditor.
        entered_by: user id of the auditor.
        entered_at: when it was entered.
        commitment: where what it draws from was sealed before.
    """

    model_config = ConfigDict(frozen=True)

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
    """Say why a seed cannot be taken; None when it can.

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
    """Return a text with ``·`` for what nobody sees: controls, marks, blanks that are no space."""
    return "".join(
        "·" if unicodedata.category(one) in _UNSEEN and one != " " else one for one in text
    )


def why(cause: Cause) -> Message:
    """Say to a person why a seed was refused, and what to enter."""
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
    """Return the filled form of a seed that nobody read at its source; the evidence says so.

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
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=fallback.tzinfo)
