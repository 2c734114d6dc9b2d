"""``parcelseal partners``: who they are, their reviews, and whether anything may be shared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import (
    english,
    json_row,
    print_json,
    print_line,
    print_note,
    print_result,
    results,
)
from include.cli.options import AsJson, By
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, print_list, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.partners.history import Review
    from include.partners.partner_status import PartnerObligations
    from include.partners.rules import PartnerRules
    from include.workflow.run_context import RunContext
    from include.workplace import Workplace

app = typer.Typer(no_args_is_help=True, help="Partners, their reviews and their standing.")

Partner = Annotated[str, typer.Argument(help="Number of the partner in the register.")]

_RESULTS = {None: "open", True: "passed", False: "failed"}


@app.command("list")
def list_partners(as_json: AsJson = False) -> int:
    """Show every partner of the register with what binds it."""
    with local_stack(workplace()) as place:
        from include.partners import history
        from include.partners.partner_status import bound_of
        from include.partners.register import register_of

        run = _context(place)
        register = register_of(run)
        with place.state.connect() as conn:
            bound = bound_of(run, history.known(conn), register.partners)
    found = [_told(run, one) for one in bound]
    odd = [
        {"partner": one.partner, "code": one.code, "message": english(one.message)}
        for one in register.oddities
    ]
    content = {"partners": found, "oddities": odd, "without_number": register.unnamed}
    columns: Columns[dict[str, Any]] = {
        "partner": lambda partner: partner["partner"],
        "company": lambda partner: partner["name"],
        "tier": lambda partner: "not known" if partner["tier"] is None else partner["tier"],
        "access": lambda partner: bool(partner["live_access"]),
        "nda": lambda partner: _ends(partner["nda"]),
        "agreement": lambda partner: _ends(partner["agreement"]),
        "review": lambda partner: _ends(partner["review"]),
        "sharing": lambda partner: "allowed" if partner["allowed"] else "refused",
    }
    if not print_list(as_json, content, found, columns):
        return 0
    for one in register.oddities:
        print_line(f"  {one.partner}: {english(one.message)}")
    if register.unnamed:
        results.print(f"  rows without a number that can be used: {register.unnamed}")
    return 0


@app.command("show")
def show(partner: Partner, as_json: AsJson = False) -> int:
    """Show a partner with its standing, its reviews and who processes for it."""
    with local_stack(workplace()) as place:
        from include.partners import history
        from include.partners.partner_status import bound_of, of
        from include.partners.register import partner_of

        run = _context(place)
        named = partner_of(run, partner)
        with place.state.connect() as conn:
            (bound,) = bound_of(run, history.known(conn, partner), {partner: named})
            reviews = history.history(conn, partner)
    reasons = [english(reason) for reason in of(bound, run.today).reasons]
    if as_json:
        told = _told(run, bound) | {"reasons": reasons}
        print_json(told | {"reviews": [_review(one) for one in reviews]})
        return 0
    results.print(english(named.title), markup=False)
    for reason in reasons or ["Nothing stands against sharing with it."]:
        print_line(f"  {reason}")
    print_table(
        map(_review, reviews),
        {
            "review": lambda review: review["id"],
            "opened": lambda review: review["opened_at"][:10],
            "because": lambda review: review["because"] or "its turn came",
            "issued": lambda review: (review["issued_at"] or "")[:10],
            "returned": lambda review: (review["returned_at"] or "")[:10],
            "score": lambda review: review["score"],
            "decided": lambda review: (review["decided_at"] or "")[:10],
            "result": lambda review: _RESULTS[review["passed"]],
        },
    )
    return 0


@app.command("questionnaire")
def questionnaire(
    partner: Partner,
    out: Annotated[Path, typer.Option("--out", help="The workbook to write (.xlsx).")],
    by: By,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Ask what the pack asks now; what came back counts no more."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Issue the questionnaire of a partner's review; opens a review where none is open."""
    from include.partners import reviews
    from include.partners.questionnaire import write
    from include.partners.register import partner_of

    with local_stack(workplace()) as place:
        run = _context(place)
        named = partner_of(run, partner)
        with place.state.begin() as conn:
            review = reviews.issue(
                conn,
                named,
                run.rules,
                by=by,
                at=run.now,
                timezone=str(run.zone),
                anew=anew,
            )
            assert review.issued is not None
            try:  # before it is committed: nothing is issued that nobody has
                out.write_bytes(write(review.issued))
            except OSError as error:
                raise UsageError(f"{out} cannot be written: {error.strerror}.") from None
    return print_result(
        as_json,
        _review(review) | {"file": str(out)},
        f"review {review.id} of partner {partner}: {out}",
        "Send it to the partner; hand in what comes back: "
        "./parcelseal partners return FILE --by ID.",
    )


@app.command("return")
def hand_in(
    file: Annotated[Path, typer.Argument(help="The filled-in questionnaire.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Hand in a filled-in questionnaire; every fault is named, and then nothing is taken."""
    from include.partners import reviews
    from include.workbooks.file import read_returned

    content = read_returned(file)
    with local_stack(workplace()) as place, place.state.begin() as conn:
        at = place.clock.now()
        review = reviews.hand_in(conn, content, file.name, by=by, at=at)
    _warn(review)
    if as_json:
        print_json(_review(review))
        return 0
    told = _review(review)
    found = review.score
    assert found is not None
    verdict = "passes" if found.passes else "does not pass"
    results.print(
        f"taken: review {review.id} of partner {review.partner}, score "
        f"{told['score'] or 'none'}, which {verdict}",
        soft_wrap=True,
    )
    for name in found.failed:
        results.print(f"  critical question answered with no: {name}", markup=False)
    results.print(f"Somebody else decides: ./parcelseal partners decide {review.partner} ...")
    return 0


@app.command("decide")
def decide(
    partner: Partner,
    by: By,
    reason: Annotated[str, typer.Option(help="Why, in plain words; no customer data.")],
    passed: Annotated[bool, typer.Option("--passed", help="The review passed.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="The review failed.")] = False,
    as_json: AsJson = False,
) -> int:
    """Decide on a partner's open review; from then on it is history, and a correction a new one."""
    from include.partners import reviews

    if passed == failed:  # with both, the last one must not win unseen
        raise UsageError(
            "The result of the review is missing.", "Write --passed or --failed, one of them."
        )
    with local_stack(workplace()) as place, place.state.begin() as conn:
        review = reviews.decide(
            conn, partner, passed=passed, by=by, reason=reason, at=place.clock.now()
        )
    _warn(review)
    return _show(review, as_json)


@app.command("reopen")
def reopen(
    partner: Partner,
    because: Annotated[str, typer.Option(help="Why, in plain words; no customer data.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """After an incident: open a review again; nothing may be shared until it passes."""
    from include.partners import history, reviews
    from include.partners.register import partner_of

    with local_stack(workplace()) as place:
        partner_of(_context(place), partner)  # one that exists: a typing error would block nobody
        with place.state.begin() as conn:
            before = history.open_one(conn, partner)
            review = reviews.reopen(conn, partner, because=because, by=by, at=place.clock.now())
    changed = review != before
    if as_json:
        print_json(_review(review) | {"changed": changed})
        return 0
    _show(review, as_json)
    said = "is refused from now on" if changed else "was refused already, nothing changed"
    print_line(
        f"Sharing with partner {partner} {said}, until a review passes. Next: "
        f"./parcelseal partners questionnaire {partner} --out FILE --by ID"
    )
    return 0


@app.command("standing")
def standing(partner: Partner, as_json: AsJson = False) -> int:
    """Say whether anything may be shared with a partner now; exit code 1 where nothing may."""
    from include.partners.partner_status import standing_of

    with local_stack(workplace()) as place:
        found = standing_of(_context(place), partner)
    reasons = [english(reason) for reason in found.reasons]
    if as_json:
        print_json({"partner": partner, "allowed": found.allowed, "reasons": reasons})
    else:
        verdict = "allowed" if found.allowed else "refused"
        results.print(f"sharing with partner {partner}: {verdict}", markup=False)
        for reason in reasons:
            print_line(f"  {reason}")
    return 0 if found.allowed else 1


def _context(place: Workplace) -> RunContext[PartnerRules]:
    from include.partners.rules import PARTNERS
    from include.workflow.run_context import context_of

    return context_of(PARTNERS, place)


def _show(review: Review, as_json: bool) -> int:
    told = _review(review)
    text = f"review {review.id} of partner {review.partner}: {_RESULTS[told['passed']]}"
    return print_result(as_json, told, text)


def _warn(review: Review) -> None:
    """Say on stderr what the score does not: who processes outside of China."""
    from include.partners.history import abroad, countries

    if named := abroad(review.sub_processors):
        print_note(
            f"warning: sub-processors that are not given as in China: {len(named)} "
            f"({countries(named)}). "
            "See whether the answers say so, and whether it may be provided there."
        )


def _told(run: RunContext[PartnerRules], one: PartnerObligations) -> dict[str, Any]:
    from include.partners.partner_status import ObligationKind, of

    def ends(*what: ObligationKind) -> dict[str, Any] | None:
        term = one.term(*what)
        if term is None:
            return None
        day = term.last_day.isoformat() if term.last_day else None
        return {"what": str(term.what), "until": day, "state": str(term.state(run.today))}

    return {
        "partner": one.partner.number,
        "name": one.partner.name,
        "tier": one.partner.tier,
        "live_access": one.partner.live,
        "nda": ends(ObligationKind.NDA),
        "agreement": ends(ObligationKind.AGREEMENT),
        "review": ends(ObligationKind.REVIEW, ObligationKind.FAILED, ObligationKind.REOPENED),
        "allowed": of(one, run.today).allowed,
    }


def _ends(term: dict[str, Any] | None) -> str:
    if term is None:
        return "not known"
    if term["what"] in ("failed", "reopened"):
        return str(term["what"])
    if term["until"] is None:
        return "not known"
    return f"{term['until']} {term['state']}".replace(" valid", "").replace("_", " ")


def _review(review: Review) -> dict[str, Any]:
    from include.partners.history import abroad
    from include.partners.rules import shown

    score = review.score
    share = score.share if score else None
    return (
        json_row(review, "id", "partner", "opened_at", "because")
        | {
            "issued_at": review.issued.issued_at.isoformat() if review.issued else None,
            "issued_sha256": review.issued.sha256 if review.issued else None,
        }
        | json_row(review, "returned_at", "returned_by", "file_sha256")
        | {
            "score": shown(share) if share is not None else None,
            "passes": score.passes if score else None,
            "answers": {name: str(given.answer) for name, given in review.answers.items()},
            "sub_processors": [
                json_row(named, "name", "country", "what_for") for named in review.sub_processors
            ],
            "sub_processors_abroad": len(abroad(review.sub_processors)),
        }
        | json_row(review, "decided_at", "decided_by", "passed", "reason")
    )
