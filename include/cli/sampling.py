"""``parcelseal sampling``: sizes, limits and draws that anybody can work out again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli import evidence
from include.cli.console import (
    english,
    errors,
    json_row,
    print_json,
    print_line,
    print_note,
    print_result,
    results,
)
from include.cli.options import AsJson
from include.cli.stack import local_stack, workplace
from include.cli.table import fields, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from fractions import Fraction

    from include.sampling.exact.strata import StagedPlan

app = typer.Typer(no_args_is_help=True, help="Audit samples: sizes, limits, draws, verification.")

Rate = "a decimal or a percentage, 0.07 or 7%"
Tolerable = Annotated[str, typer.Option(help=f"Rate that is not accepted: {Rate}.")]
Confidence = Annotated[str, typer.Option(help=f"One minus the risk of accepting it: {Rate}.")]
Population = Annotated[int | None, typer.Option(help="How many items; left out: very many.")]


@app.command("size")
def size(
    tolerable: Tolerable,
    expected: Annotated[str, typer.Option(help=f"Rate that is expected: {Rate}.")] = "0",
    confidence: Confidence = "95%",
    population: Population = None,
    stages: Annotated[
        int | None, typer.Option(help="Plan so many stages: accept at 0, go on at exactly 1.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Say how many items to draw and how many deviations to accept among them."""
    from include.policy.rates import parse_rate
    from include.sampling.exact.sizes import smallest_size
    from include.sampling.exact.strata import smallest_stages

    rates = {"tolerable": parse_rate(tolerable, "tolerable rate")}
    rates["expected"] = parse_rate(expected, "expected rate")
    rates["confidence"] = parse_rate(confidence, "confidence")
    if stages is not None and rates["expected"] >= rates["tolerable"]:
        raise UsageError(
            "The expected rate is not below the tolerable rate: no sample could accept it.",
            "Expect fewer deviations or tolerate more.",
        )
    if stages is not None:
        planned = smallest_stages(rates["tolerable"], rates["confidence"], stages, population)
        return _show_stages(planned, rates["expected"], population, as_json)
    found = smallest_size(
        rates["tolerable"], rates["confidence"], expected=rates["expected"], population=population
    )
    told = {
        "n": found.n,
        "acceptable_deviations": found.acceptable,
        "method": found.method,
        "achieved_risk": _number(found.achieved_risk),
    }
    if as_json:
        print_json(told)
    else:
        results.print(
            f"Draw {found.n:,} items; accept the population at {found.acceptable:,} deviations or "
            f"fewer ({found.method}; risk {told['achieved_risk']})."
        )
    return 0


def _show_stages(
    planned: StagedPlan, expected: Fraction, population: int | None, as_json: bool
) -> int:
    from include.sampling.exact.strata import accepted_at

    last = planned.stages
    told: dict[str, Any] = {
        "stages": [
            {"n": planned.n, "acceptable_deviations": 0, "go_on_at": 1 if stage < last else None}
            for stage in range(1, last + 1)
        ],
        "method": planned.method,
        "achieved_risk": _number(planned.achieved_risk),
        "accepted_at_expected": _number(accepted_at(planned, expected, population)),
    }
    if as_json:
        print_json(told)
        return 0
    results.print(
        f"Plan {last} stages of {planned.n:,} items. No deviation in a stage accepts the "
        f"population; exactly one calls for the next stage, and in the last one rejects "
        f"({planned.method}; risk {told['achieved_risk']})."
    )
    return 0


@app.command("limit")
def limit(
    n: Annotated[int, typer.Option("--n", help="Items examined.")],
    deviations: Annotated[int, typer.Option(help="How many of them deviate.")],
    confidence: Annotated[str, typer.Option(help=f"Confidence of the limit: {Rate}.")] = "95%",
    population: Population = None,
    as_json: AsJson = False,
) -> int:
    """Say how bad the population may be, given what the sample held: the one-sided limit."""
    from include.policy.rates import parse_rate
    from include.sampling.exact.sizes import upper_limit

    found = upper_limit(n, deviations, parse_rate(confidence, "confidence"), population)
    if as_json:
        print_json(
            {
                "upper_limit": float(found.rate),
                "upper_limit_rounded_up_pct": float(found.rounded_up_pct),
                "method": found.method,
            }
        )
    else:
        results.print(
            f"At most {found.rounded_up_pct}% of the population deviate "
            f"({found.rate.normalize():f}; {found.method})."
        )
    return 0


@app.command("draw")
def draw(
    seed: Annotated[str, typer.Option(help="Any text; every character counts.")],
    population: Annotated[int, typer.Option(help="How many items there are.")],
    n: Annotated[int, typer.Option("--n", help="How many to draw.")],
    with_replacement: Annotated[
        bool, typer.Option("--with-replacement", help="An item may come twice.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Draw items by a seed (Rivest's SHA-256 sampler); the same seed draws the same items."""
    from include.sampling.exact import selection

    drawn = selection.draw(seed, population, n, with_replacement=with_replacement)
    lines = [" ".join(map(str, drawn.items))]
    if drawn.rejected:
        lines.append(f"came again and were rejected: {' '.join(map(str, drawn.rejected))}")
    return print_result(as_json, json_row(drawn, "items", "rejected"), *lines)


def _number(risk: Fraction) -> float:
    """A risk as a JSON number, rounded up at twelve digits."""
    from include.policy.rates import ceiling

    return float(ceiling(risk, 12))


@app.command("verify")
def verify(
    bundle: Annotated[str, typer.Argument(help="A bundle of sample_audit: its folder.")],
    as_json: AsJson = False,
) -> int:
    """Draw a bundle's samples again from its frames and seed; check its seal too."""
    from rich.text import Text

    from include.reports.i18n import visible
    from include.sampling.verify import redraw

    sealed = evidence.check(bundle)
    redrawn = redraw(evidence.folder_of(bundle), partial(evidence.beside, bundle))
    holds = sealed.verified and redrawn.holds
    reasons = [
        *([] if sealed.verified else [str(sealed.reason)]),
        *redrawn.faults,
        *(f"{one.population}: {fault}" for one in redrawn.populations for fault in one.faults),
    ]
    if as_json:
        print_json(
            {
                "verified": holds,
                **json_row(redrawn, "audit", "seed", "commitment_sha256", "commitment_seen"),
                "reason": "; ".join(reasons) or None,
                "populations": [
                    json_row(population, "population", "items", "drawn", "rejected")
                    | {"verified": not population.faults}
                    for population in redrawn.populations
                ],
            }
        )
        return 0 if holds else 1
    # A bundle from elsewhere may hold anything, also what a terminal takes for orders.
    results.print(Text(f"audit {visible(redrawn.audit)}, seed {visible(redrawn.seed)}"))
    results.print(f"commitment, SHA-256: {redrawn.commitment_sha256}")
    if not redrawn.commitment_seen:
        errors.print("  remark: the bundle in which it was sealed before the seed is not at hand")
    print_table(
        redrawn.populations,
        {
            "population": lambda population: population.population,
            **fields("items", "drawn", "rejected", form=","),
            "drawn again": lambda population: (
                "other than sealed" if population.faults else "the same"
            ),
        },
    )
    for reason in reasons:
        told = Text.assemble(("not verified", "bold red"), f": {visible(reason)}")
        errors.print(told, soft_wrap=True)
    if holds:
        results.print("verified: the seal holds, and the same items are drawn again")
    return 0 if holds else 1


@app.command("return")
def hand_in(
    file: Annotated[Path, typer.Argument(help="The filled-in workpapers.")],
    by: Annotated[str, typer.Option("--by", help="Who hands them in.")],
    as_json: AsJson = False,
) -> int:
    """Hand in filled-in workpapers; every fault is named, and then nothing is taken."""
    from include.sampling import issue
    from include.workbooks.file import read_returned

    content = read_returned(file)
    with local_stack(workplace()) as place, place.state.begin() as conn:
        taken = issue.hand_in(conn, content, file.name, by=by, at=place.clock.now())
    assert taken.handed_in is not None
    remarks = [english(remark) for remark in taken.handed_in.remarks]
    if as_json:
        told = {"workpapers": taken.part, "audit": taken.audit, "stage": taken.stage}
        print_json(told | {"items": len(taken.handed_in.items), "remarks": remarks})
        return 0
    for one in taken.handed_in.replaced[-1:]:
        print_note(
            f"  remark: it replaces what {one.returned_by} handed in at {one.returned_at:%F %R}; "
            f"{one.changed:,} items were answered otherwise"
        )
    results.print(f"taken: {taken.part}, {len(taken.handed_in.items):,} items")
    for remark in remarks:
        print_line(f"  remark: {remark}")
    results.print("The next run of conclude_audit judges them; start it now or wait for it.")
    return 0
