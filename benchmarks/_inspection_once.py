"""Write one inspection pack, and print its measurements. `benchmarks.inspection` runs this."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from include.inspection.pack import InspectionPack, PackSources, write_pack
from include.inspection.request import request_of
from include.policy import SHIPPED
from include.registry import bundle_title, load_pack
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine


def peak_memory() -> int:
    """Return the largest resident set of this process since it was started, in bytes.

    The operating system's `ru_maxrss` would include the memory of the process that started it.
    """
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Read the wish from stdin, write the pack, and print a JSON object."""
    wish = json.load(sys.stdin)
    policy = load_pack(SHIPPED)
    zone = policy.calendar.zone
    first = datetime.fromisoformat(wish["first"]).astimezone(zone).date()
    last = datetime.fromisoformat(wish["last"]).astimezone(zone).date() - timedelta(days=1)
    sources = PackSources(
        store=DirectoryStore(Path(wish["store"])),
        connect=engine(wish["conninfo"]).connect,
        trusted=[Path(wish["key"]).read_bytes()],
        policy=policy,
        title_of=bundle_title,
        may_read=lambda _workflow: True,
        pending=lambda _bundle: None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        code_version="-",
    )
    pack = InspectionPack(request_of(policy, [wish["clause"]], first, last), sources)
    begun = time.monotonic()
    write_pack(pack, Path(wish["out"]))
    seconds = time.monotonic() - begun
    answer = {
        "seconds": seconds,
        "peak": peak_memory(),
        "size": Path(wish["out"]).stat().st_size,
        "bundles": len(pack.bundles),
    }
    if pack.not_verified:
        sys.exit(f"{len(pack.not_verified)} bundles do not verify")
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
