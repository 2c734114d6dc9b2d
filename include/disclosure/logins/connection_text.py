"""Write the file that tells the requester how to use a login. It does not contain the password."""

from __future__ import annotations

from include.disclosure.grants import Grant
from include.disclosure.requests import UseRequest
from include.messages import Message, _, verbatim
from include.reports.i18n import Translator

_COLONS = {"zh_CN": "：", "en": ": "}


def login_text(request: UseRequest, grant: Grant) -> bytes:
    """Return the address of the database, the user name and the view, in both languages (UTF-8).

    Args:
        request: the approved request.
        grant: grant with a delivered login.
    """
    lines: list[tuple[Message, Message]] = [
        (_("Request"), verbatim(str(request.id))),
        (_("Database and server"), verbatim(grant.store)),
        (_("User"), verbatim(grant.object_key)),
        (_("Table"), verbatim(request.content.collection)),
        (_("Access ends"), Message(text="{at}", values={"at": grant.expires_at})),
    ]
    parts = []
    for language, colon in _COLONS.items():
        words = Translator(language, "UTC")
        parts += [f"{words.text(label)}{colon}{words.text(value)}" for label, value in lines]
        parts += [words.text(_("The password was sent to you by mail.")), ""]
    return "\r\n".join(parts).encode()
