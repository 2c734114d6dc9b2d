"""``parcelseal inspection-pack``: write all evidence for clauses and a period into one ZIP file."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from include.cli.console import print_result, tell
from include.cli.options import AsJson, day_option
from include.cli.stack import command_services, local_stack


def inspection_pack(
    clauses: Annotated[
        list[str], typer.Option("--clause", help="Number of a policy clause. Can be repeated.")
    ],
    first_day: Annotated[date, day_option("First day of the period.", "--from")],
    last_day: Annotated[date, day_option("Last day of the period.", "--to")],
    out: Annotated[Path, typer.Option(help="ZIP file to write. An existing file is replaced.")],
    as_json: AsJson = False,
) -> int:
    """Write an inspection pack: the bundles of clauses and a period, with letter and verifier.

    The pack contains a cover letter, a summary, an index, the bundles, the public keys and the page
    verify.html, which checks the pack in a browser without a network.

    Exit code 1: a bundle in the pack does not verify.
    """
    from include.evidence.control_index import sealed_clauses
    from include.evidence.ledger_recovery import pending_signature
    from include.inspection.pack import InspectionPack, PackSources, write_pack
    from include.inspection.request import request_of
    from include.registry import bundle_title

    services = command_services()
    with local_stack(services):
        state = services.state
        with state.connect() as conn:
            sealed = set().union(*sealed_clauses(conn).values())
        request = request_of(services.pack, clauses, first_day, last_day, sealed)

        def pending(bundle: str) -> bytes | None:
            with state.connect() as conn:
                return pending_signature(conn, bundle)

        sources = PackSources(
            store=services.store("evidence_store"),
            connect=state.connect,
            trusted=services.trusted,
            policy=services.pack,
            title_of=bundle_title,
            may_read=lambda _workflow: True,  # the person has the credentials of the store
            pending=pending,
            created_at=services.clock.now(),
            code_version=services.code_version,
        )
        pack = InspectionPack(request, sources)
        write_pack(pack, out)
    not_verified = pack.not_verified
    bundles = [bundle for bundle in pack.bundles if not bundle.is_removed]
    removed = len(pack.bundles) - len(bundles)
    if removed:
        tell(f"{removed} bundles of the period were removed at the end of their retention period")
    if not bundles:
        tell("the pack contains no evidence of the period: no bundle belongs to it")
    if not as_json:
        for folder in not_verified:
            tell(f"[red]does not verify:[/red] {folder}")
    print_result(
        as_json,
        {
            "file": str(out),
            "bundles": len(bundles),
            "verified": len(bundles) - len(not_verified),
            "not_verified": not_verified,
            "removed": removed,
            "not_created": pack.not_created,
        },
        f"{out}: {len(bundles)} bundles, {len(bundles) - len(not_verified)} of them verify",
    )
    return 1 if not_verified else 0
