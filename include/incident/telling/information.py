"""Types of information, as people call them who never heard of a data category."""

from __future__ import annotations

from collections.abc import Iterable

from include.messages import Message, _, verbatim

_WORDS: dict[str, Message] = {
    "user.name": _("name"),
    "user.contact.phone_number": _("phone number"),
    "user.contact.email": _("e-mail address"),
    "user.contact.address": _("address"),
    "user.contact": _("contact details"),
    "user.government_id.national_identification_number": _("resident ID number"),
    "user.government_id": _("identity document number"),
    "user.demographic.date_of_birth": _("date of birth"),
    "user.demographic.religious_belief": _("religious belief"),
    "user.demographic": _("personal characteristics"),
    "user.biometric": _("biometric information"),
    "user.health_and_medical": _("health information"),
    "user.financial": _("bank or payment information"),
    "user.payment": _("bank or payment information"),
    "user.location": _("whereabouts"),
    "user.account.settings": _("delivery preferences"),
    "user.account.password": _("password"),
    "user.authorization": _("access credentials"),
    "user.account": _("account information"),
    "user.privacy_preferences": _("consents and privacy choices"),
    "user.unique_id": _("customer or waybill number"),
    "user.behavior": _("use of services"),
    "user.content": _("texts, pictures or signatures"),
    "user.workplace": _("information about work"),
    "user.job_title": _("information about work"),
    "user.device": _("device information"),
}


def types_of(categories: Iterable[str]) -> list[Message]:
    """Data categories in plain words, each once, in the order of the words above.

    A category without words of its own has those of the nearest one above it; one that has none at
    all stands as it is written, so that nothing that is affected is left out.

    Args:
        categories: fideslang data categories; those of systems are nobody's.
    """
    order = list(_WORDS)
    found: dict[str, Message] = {}
    for one in categories:
        if one == "user" or one.startswith("user."):
            known = _nearest(one)
            words = _WORDS[known] if known else verbatim(one)
            found.setdefault(words.text if known else one, words)
    places = {words.text: at for at, words in reversed(list(enumerate(_WORDS.values())))}
    return [found[key] for key in sorted(found, key=lambda key: (places.get(key, len(order)), key))]


def _nearest(category: str) -> str | None:
    while category:
        if category in _WORDS:
            return category
        category = category.rpartition(".")[0]
    return None
