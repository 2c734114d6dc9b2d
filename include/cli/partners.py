"""``parcelseal partners``: partners, their security reviews, and their sharing status."""

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
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, print_list, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.partners.history import Review
    from include.partners.partner_status import PartnerObligations
    from include.partners.rules import PartnerRules
    from include.service_container import Services
    from include.workflow.run_context import RunContext

app = typer.Typer(no_args_is_help=True, help="Partners, their reviews and their sharing status.")

Partner = Annotated[str, typer.Argument(help="Number of the partner in the register.")]

_RESULTS = {None: "open", True: "passed", False: "failed"}


@app.command("list")
def list_partners(as_json: AsJson = False) -> int:
    """List the registered partners with their obligations."""
    with local_stack(command_services()) as services:
        from include.partners import history
        from include.partners.partner_status import obligations_of
        from include.partners.register import load_register

        run = _context(services)
        register = load_register(run)
        with services.state.connect() as conn:
            bound = obligations_of(run, history.load_histories(conn), register.partners)
    listed = [_row(run, obligations) for obligations in bound]
    odd = [
        {"partner": fault.partner, "code": fault.code, "message": english(fault.message)}
        for fault in register.faults
    ]
    content = {"partners": listed, "oddities": odd, "without_number": register.unnamed}
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
    if not print_list(as_json, content, listed, columns):
        return 0
    for fault in register.faults:
        print_line(f"  {fault.partner}: {english(fault.message)}")
    if register.unnamed:
        results.print(f"  rows without a valid number: {register.unnamed}")
    return 0


@app.command("show")
def show(partner: Partner, as_json: AsJson = False) -> int:
    """Show a partner with its sharing status, security reviews and sub-processors."""
    with local_stack(command_services()) as services:
        from include.partners import history
        from include.partners.partner_status import obligations_of, sharing_status
        from include.partners.register import load_partner

        run = _context(services)
        named = load_partner(run, partner)
        with services.state.connect() as conn:
            (bound,) = obligations_of(run, history.load_histories(conn, partner), {partner: named})
            reviews = history.load_reviews(conn, partner)
    reasons = [english(reason) for reason in sharing_status(bound, run.today).reasons]
    if as_json:
        shown = _row(run, bound) | {"reasons": reasons}
        print_json(shown | {"reviews": [_review(review) for review in reviews]})
        return 0
    results.print(english(named.title), markup=False)
    for reason in reasons or ["Data may be shared with this partner."]:
        print_line(f"  {reason}")
    print_table(
        map(_review, reviews),
        {
            "review": lambda review: review["id"],
            "opened": lambda review: review["opened_at"][:10],
            "because": lambda review: review["because"] or "regular review",
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
    out: Annotated[
        Path, typer.Option("--out", help="File (.xlsx) into which the workbook is written.")
    ],
    by: By,
    anew: Annotated[
        bool,
        typer.Option(
            "--anew",
            help="Use the questions of the current policy pack. Earlier answers to this review"
            " no longer count.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Write the questionnaire of a partner's security review as a workbook.

    If the partner has no open review, the command opens one.
    """
    from include.partners import reviews
    from include.partners.questionnaire import write_workbook
    from include.partners.register import load_partner

    with local_stack(command_services()) as services:
        run = _context(services)
        named = load_partner(run, partner)
        with services.state.begin() as conn:
            review = reviews.issue_questionnaire(
                conn,
                named,
                run.rules,
                by=by,
                at=run.now,
                timezone=str(run.zone),
                reissue=anew,
            )
            assert review.issued is not None
            try:  # before the commit, so that every issued questionnaire exists
                out.write_bytes(write_workbook(review.issued))
            except OSError as error:
                raise UsageError(f"{out} cannot be written: {error.strerror}.") from None
    return print_result(
        as_json,
        _review(review) | {"file": str(out)},
        f"review {review.id} of partner {partner}: {out}",
        "Send the file to the partner. Import the completed file with "
        "./parcelseal partners return FILE --by ID.",
    )


@app.command("return")
def hand_in(
    file: Annotated[Path, typer.Argument(help="File with the filled-in questionnaire.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Import a filled-in questionnaire.

    If the questionnaire has faults, the command prints them and imports nothing.
    """
    from include.partners import reviews
    from include.workbooks.file import read_returned

    content = read_returned(file)
    with local_stack(command_services()) as services, services.state.begin() as conn:
        at = services.clock.now()
        review = reviews.accept_questionnaire(conn, content, file.name, by=by, at=at)
    _warn(review)
    if as_json:
        print_json(_review(review))
        return 0
    shown = _review(review)
    score = review.score
    assert score is not None
    verdict = "passes" if score.passes else "does not pass"
    results.print(
        f"imported: review {review.id} of partner {review.partner}, score "
        f"{shown['score'] or 'none'}, which {verdict}",
        soft_wrap=True,
    )
    for name in score.failed:
        results.print(f"  critical question answered with no: {name}", markup=False)
    results.print(f"Another person decides: ./parcelseal partners decide {review.partner} ...")
    return 0


@app.command("decide")
def decide(
    partner: Partner,
    by: By,
    reason: Annotated[str, typer.Option(help="Reason, without customer data.")],
    passed: Annotated[bool, typer.Option("--passed", help="The review passed.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="The review failed.")] = False,
    as_json: AsJson = False,
) -> int:
    """Record that a partner's open security review passed or failed. The decision is final.

    To correct a decision, open a new review.
    """
    from include.partners import reviews

    if passed == failed:  # with both options, typer would silently take the last
        raise UsageError("The result of the review is missing.", "Add either --passed or --failed.")
    with local_stack(command_services()) as services, services.state.begin() as conn:
        review = reviews.decide(
            conn, partner, passed=passed, by=by, reason=reason, at=services.clock.now()
        )
    _warn(review)
    return _show(review, as_json)


@app.command("reopen")
def reopen(
    partner: Partner,
    because: Annotated[str, typer.Option(help="Reason, without customer data.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Reopen a partner's security review after an incident.

    Sharing with the partner is blocked until a review passes.
    """
    from include.partners import history, reviews
    from include.partners.register import load_partner

    with local_stack(command_services()) as services:
        load_partner(
            _context(services), partner
        )  # refuses an unknown partner, such as a mistyped number
        with services.state.begin() as conn:
            before = history.lock_open_review(conn, partner)
            review = reviews.reopen(conn, partner, because=because, by=by, at=services.clock.now())
    changed = review != before
    if as_json:
        print_json(_review(review) | {"changed": changed})
        return 0
    _show(review, as_json)
    change = "is blocked from now on" if changed else "was blocked already; nothing changed"
    print_line(
        f"Sharing with partner {partner} {change}. A review that passes ends the block. Next: "
        f"./parcelseal partners questionnaire {partner} --out FILE --by ID"
    )
    return 0


@app.command("standing")
def standing(partner: Partner, as_json: AsJson = False) -> int:
    """Show whether data may be shared with a partner now.

    Exit code 1: sharing is blocked.
    """
    from include.partners.partner_status import load_partner_status

    with local_stack(command_services()) as services:
        status = load_partner_status(_context(services), partner)
    reasons = [english(reason) for reason in status.reasons]
    if as_json:
        print_json({"partner": partner, "allowed": status.is_allowed, "reasons": reasons})
    else:
        verdict = "allowed" if status.is_allowed else "refused"
        results.print(f"sharing with partner {partner}: {verdict}", markup=False)
        for reason in reasons:
            print_line(f"  {reason}")
    return 0 if status.is_allowed else 1


def _context(services: Services) -> RunContext[PartnerRules]:
    from include.partners.rules import PARTNERS
    from include.workflow.run_context import context_of

    return context_of(PARTNERS, services)


def _show(review: Review, as_json: bool) -> int:
    shown = _review(review)
    text = f"review {review.id} of partner {review.partner}: {_RESULTS[shown['passed']]}"
    return print_result(as_json, shown, text)


def _warn(review: Review) -> None:
    """Print a warning if a sub-processor of the partner processes data outside of China.

    The score of the questionnaire does not take this into account.
    """
    from include.partners.history import country_list, outside_china

    if named := outside_china(review.sub_processors):
        print_note(
            f"warning: {len(named)} sub-processors have a country or region other than mainland "
            f"China ({english(country_list(named))}). Check whether the partner may provide "
            "customer information there, and whether its other answers agree with this list."
        )


def _row(run: RunContext[PartnerRules], obligations: PartnerObligations) -> dict[str, Any]:
    from include.partners.partner_status import ObligationKind, sharing_status

    def ends(*kinds: ObligationKind) -> dict[str, Any] | None:
        term = obligations.term(*kinds)
        if term is None:
            return None
        day = term.last_day.isoformat() if term.last_day else None
        return {"what": str(term.kind), "until": day, "state": str(term.state(run.today))}

    return {
        "partner": obligations.partner.number,
        "name": obligations.partner.name,
        "tier": obligations.partner.tier,
        "live_access": obligations.partner.live,
        "nda": ends(ObligationKind.NDA),
        "agreement": ends(ObligationKind.AGREEMENT),
        "review": ends(ObligationKind.REVIEW, ObligationKind.FAILED, ObligationKind.REOPENED),
        "allowed": sharing_status(obligations, run.today).is_allowed,
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
    from include.partners.history import outside_china
    from include.partners.rules import format_score

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
            "score": format_score(share) if share is not None else None,
            "passes": score.passes if score else None,
            "answers": {name: str(answer.answer) for name, answer in review.answers.items()},
            "sub_processors": [
                json_row(named, "name", "country") | {"what_for": named.purpose}
                for named in review.sub_processors
            ],
            "sub_processors_abroad": len(outside_china(review.sub_processors)),
        }
        | json_row(review, "decided_at", "decided_by", "passed", "reason")
    )
