"""Words that the notifier writes into the state database, and what they say to people."""

from __future__ import annotations

from include.messages import Message, _

NO_ADDRESS = "no_address"
MALFORMED = "malformed"
FORBIDDEN = "domain"
NO_ROBOT = "no_robot"
REFUSED = "refused"  # followed by the codes of the answer
NOT_WRITTEN = "not_written"  # stands for the codes: no mail could be made of it
TOO_LARGE = "too_large"
GAVE_UP = "gave_up"
IN_DOUBT = "in_doubt"
NOT_WANTED = "not_wanted"
OPTED_OUT = "opted_out"

_CAUSES = {
    NO_ADDRESS: _("no address is known"),
    MALFORMED: _("what is known is no mail address"),
    FORBIDDEN: _("mail may not leave for that domain (notices.yaml)"),
    NO_ROBOT: _("there is no such connection of a robot"),
    TOO_LARGE: _("the server takes no message of that size"),
    GAVE_UP: _("the server put it off for too long"),
    IN_DOUBT: _("nobody knows whether it arrived"),
    NOT_WANTED: _("it was done before it was sent"),
    OPTED_OUT: _("the recipient does not want it"),
}


def explained(cause: str) -> Message:
    """What a cause says to people; one of a workflow's own is shown as it stands."""
    word, _space, code = cause.partition(" ")
    if word == REFUSED:
        return _("the server refused it: {code}", code=code or "-")
    return _CAUSES.get(word) or Message(text="{cause}", values={"cause": cause})
