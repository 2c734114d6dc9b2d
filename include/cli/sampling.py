"""``parcelseal sampling``: sample sizes, upper limits, and draws that anyone can recompute."""

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
from include.cli.stack import command_services, local_stack
from include.cli.table import fields, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from fractions import Fraction

    from include.sampling.exact.strata import StagedPlan

app = typer.Typer(no_args_is_help=True, help="Audit samples: sizes, limits, draws, verification.")

Rate = "a decimal number or a percentage, such as 0.07 or 7%"
ConfidenceValue = "a decimal number or a percentage, such as 0.95 or 95%"
Tolerable = Annotated[str, typer.Option(help=f"Tolerable rate: {Rate}.")]
Confidence = Annotated[
    str,
    typer.Option(
        help=f"Confidence: one minus the risk that a population with the tolerable rate is "
        f"accepted; {ConfidenceValue}."
    ),
]
Population = Annotated[
    int | None,
    typer.Option(
        help="Number of items of the population. By default, the population is treated as infinite."
    ),
]


@app.command("size")
def size(
    tolerable: Tolerable,
    expected: Annotated[str, typer.Option(help=f"Expected rate: {Rate}.")] = "0",
    confidence: Confidence = "95%",
    population: Population = None,
    stages: Annotated[
        int | None,
        typer.Option(
            help="Number of stages of a staged plan. A stage with 0 deviations accepts the "
            "population; a stage with exactly 1 leads to the next stage."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compute the sample size, and the largest number of deviations that the plan accepts."""
    from include.policy.rates import parse_rate
    from include.sampling.exact.sizes import smallest_size
    from include.sampling.exact.strata import smallest_stages

    rates = {"tolerable": parse_rate(tolerable, "tolerable rate")}
    rates["expected"] = parse_rate(expected, "expected rate")
    rates["confidence"] = parse_rate(confidence, "confidence")
    if stages is not None and rates["expected"] >= rates["tolerable"]:
        raise UsageError(
            "The expected rate is not below the tolerable rate, so no sample could accept the "
            "population.",
            "Lower the expected rate, or raise the tolerable rate.",
        )
    if stages is not None:
        planned = smallest_stages(rates["tolerable"], rates["confidence"], stages, population)
        return _show_stages(planned, rates["expected"], population, as_json)
    sample = smallest_size(
        rates["tolerable"], rates["confidence"], expected=rates["expected"], population=population
    )
    shown = {
        "n": sample.n,
        "acceptable_deviations": sample.acceptable,
        "method": sample.method,
        "achieved_risk": _number(sample.achieved_risk),
    }
    if as_json:
        print_json(shown)
    else:
        results.print(
            f"Draw {sample.n:,} items; accept the population at {sample.acceptable:,} "
            f"deviations or fewer ({sample.method}; risk {shown['achieved_risk']})."
        )
    return 0


def _show_stages(
    planned: StagedPlan, expected: Fraction, population: int | None, as_json: bool
) -> int:
    from include.sampling.exact.strata import accepted_at

    last = planned.stages
    shown: dict[str, Any] = {
        "stages": [
            {"n": planned.n, "acceptable_deviations": 0, "go_on_at": 1 if stage < last else None}
            for stage in range(1, last + 1)
        ],
        "method": planned.method,
        "achieved_risk": _number(planned.achieved_risk),
        "accepted_at_expected": _number(accepted_at(planned, expected, population)),
    }
    if as_json:
        print_json(shown)
        return 0
    results.print(
        f"Plan {last} stages of {planned.n:,} items. A stage without deviations accepts the "
        f"population. One deviation requires the next stage; in the last stage it rejects the "
        f"population ({planned.method}; risk {shown['achieved_risk']})."
    )
    return 0


@app.command("limit")
def limit(
    n: Annotated[int, typer.Option("--n", help="Number of examined items.")],
    deviations: Annotated[int, typer.Option(help="Number of deviations.")],
    confidence: Annotated[
        str, typer.Option(help=f"Confidence of the limit: {ConfidenceValue}.")
    ] = "95%",
    population: Population = None,
    as_json: AsJson = False,
) -> int:
    """Compute the one-sided upper limit of the deviation rate from the result of a sample."""
    from include.policy.rates import parse_rate
    from include.sampling.exact.sizes import upper_limit

    upper = upper_limit(n, deviations, parse_rate(confidence, "confidence"), population)
    if as_json:
        print_json(
            {
                "upper_limit": float(upper.rate),
                "upper_limit_rounded_up_pct": float(upper.rounded_up_pct),
                "method": upper.method,
            }
        )
    else:
        results.print(
            f"At most {upper.rounded_up_pct}% of the population deviate "
            f"({upper.rate.normalize():f}; {upper.method})."
        )
    return 0


@app.command("draw")
def draw(
    seed: Annotated[
        str, typer.Option(help="Random seed: any text. Every character changes the draw.")
    ],
    population: Annotated[int, typer.Option(help="Number of items of the population.")],
    n: Annotated[int, typer.Option("--n", help="Number of items to draw.")],
    with_replacement: Annotated[
        bool,
        typer.Option(
            "--with-replacement",
            help="Draw with replacement, so that an item may be drawn more than once.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Draw items of a population with Rivest's SHA-256 sampler.

    The same seed always draws the same items.
    """
    from include.sampling.exact import selection

    drawn = selection.draw(seed, population, n, with_replacement=with_replacement)
    lines = [" ".join(map(str, drawn.items))]
    if drawn.rejected:
        lines.append(f"drawn again and rejected: {' '.join(map(str, drawn.rejected))}")
    return print_result(as_json, json_row(drawn, "items", "rejected"), *lines)


def _number(risk: Fraction) -> float:
    """Return a probability as a JSON number, rounded up to twelve decimal places."""
    from include.policy.rates import round_up

    return float(round_up(risk, 12))


@app.command("verify")
def verify(
    bundle: Annotated[str, typer.Argument(help="Folder of an evidence bundle of sample_audit.")],
    as_json: AsJson = False,
) -> int:
    """Repeat the draw that a bundle records, and verify the signature of the bundle.

    Exit code 1: the repeated draw selects other items than the bundle lists, or the seal is
    invalid.
    """
    from rich.text import Text

    from include.reports.i18n import visible
    from include.sampling.verify import redraw

    sealed = evidence.check(bundle)
    redrawn = redraw(evidence.folder_of(bundle), partial(evidence.other_bundle_folder, bundle))
    holds = sealed.verified and redrawn.matches
    reasons = [
        *([] if sealed.verified else [str(sealed.reason)]),
        *redrawn.faults,
        *(
            f"{population.population}: {fault}"
            for population in redrawn.populations
            for fault in population.faults
        ),
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
    # A bundle of another origin may contain any text, also control sequences of a terminal.
    results.print(Text(f"audit {visible(redrawn.audit)}, seed {visible(redrawn.seed)}"))
    results.print(f"commitment, SHA-256: {redrawn.commitment_sha256}")
    if not redrawn.commitment_seen:
        errors.print(
            "  remark: the bundle of the commitment, sealed before the seed, is not available"
        )
    print_table(
        redrawn.populations,
        {
            "population": lambda population: population.population,
            **fields("items", "drawn", "rejected", form=","),
            "drawn again": lambda population: (
                "different from the seal" if population.faults else "the same"
            ),
        },
    )
    for reason in reasons:
        shown = Text.assemble(("not verified", "bold red"), f": {visible(reason)}")
        errors.print(shown, soft_wrap=True)
    if holds:
        results.print("verified: the seal is valid, and the same items are drawn again")
    return 0 if holds else 1


@app.command("return")
def hand_in(
    file: Annotated[Path, typer.Argument(help="File with the filled-in workpapers.")],
    by: Annotated[
        str, typer.Option("--by", help="User id of the person who returns the workpapers.")
    ],
    as_json: AsJson = False,
) -> int:
    """Import filled-in workpapers.

    If the workpapers have faults, the command prints them and imports nothing.
    """
    from include.sampling import issue
    from include.workbooks.file import read_returned

    content = read_returned(file)
    with local_stack(command_services()) as services, services.state.begin() as conn:
        taken = issue.hand_in(conn, content, file.name, by=by, at=services.clock.now())
    assert taken.handed_in is not None
    remarks = [english(remark) for remark in taken.handed_in.remarks]
    if as_json:
        shown = {"workpapers": taken.name, "audit": taken.audit, "stage": taken.stage}
        print_json(shown | {"items": len(taken.handed_in.items), "remarks": remarks})
        return 0
    for replaced in taken.handed_in.replaced[-1:]:
        print_note(
            f"  remark: it replaces the workpaper that {replaced.returned_by} returned at "
            f"{replaced.returned_at:%F %R}; {replaced.changed:,} items have another answer"
        )
    results.print(f"imported: {taken.name}, {len(taken.handed_in.items):,} items")
    for remark in remarks:
        print_line(f"  remark: {remark}")
    results.print(
        "The next run of conclude_audit evaluates them. Start it now, or wait for its schedule."
    )
    return 0
