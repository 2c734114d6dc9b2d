"""Measure the loading of a policy pack with many data maps.

``./parcelseal bench packs``. The pack is loaded from its files, compiled, by DAG files and by a
task. Each measurement is a new process with one thread. CPU seconds are measured, so that other
programs on the machine do not matter.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

console = Console(highlight=False)
ROOT = Path(__file__).resolve().parent.parent
TABLES = 71
COLUMNS = ("id", "customer_id", "name", "phone", "email", "status", "created_at", "updated_at")
CATEGORIES = {
    "name": "user.name",
    "phone": "user.contact.phone_number",
    "email": "user.contact.email",
}
MOST_PARSE, MOST_PARSE_MIB = 3.0, 300
MOST_TASK = 0.3

_TIMED = """
import resource, time
{before}
start = time.process_time()
{code}
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
_SERVICES = "import os; from include.composition import services_from; import include.orchestration"
_TASK_IMPORTS = f"{_SERVICES}; from include.registry import workflows; workflows()"
_TASK = (
    "pack = services_from(os.environ).pack; name = 'db_007'; "
    "pack.retention_of(name), pack.suites_of(name), list(pack.database(name).collections.values())"
)


def main() -> int:
    """Measure and print all figures, and return 1 if a figure is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    maps, rounds = args.maps, range(args.rounds)
    runs = "; ".join(f"runpy.run_path({str(path)!r})" for path in sorted(ROOT.glob("dags/*.py")))
    parse = f"import runpy; {runs}"
    with tempfile.TemporaryDirectory() as temporary:
        folder, home = Path(temporary, "pack"), Path(temporary, "home")
        home.mkdir()  # packs are compiled only if a home folder exists
        write_pack(folder, maps)
        files = "from include.registry import load_pack; from pathlib import Path"
        load = f"load_pack(Path({str(folder)!r}))"
        _show("files, no compiled pack", _measured(f"{_TASK_IMPORTS}; {files}", load, folder, home))
        _show("first load, compiles", _measured(_TASK_IMPORTS, _TASK, folder, home))
        task = _median([_measured(_TASK_IMPORTS, _TASK, folder, home) for _ in rounds])
        _show(f"load in a task, at most {MOST_TASK} s", task)
        parsed = _median([_measured("", parse, folder, home) for _ in rounds])
        _show(f"all DAG files, at most {MOST_PARSE} s, {MOST_PARSE_MIB} MiB", parsed)
        own = ROOT / "include" / "policy" / "pack"
        shipped = _median([_measured("", parse, own, home) for _ in rounds])
        _show("all DAG files, shipped pack", shipped)
        forms = [path.stat().st_size for path in home.glob("packs/*.pack")]
        console.print(f"compiled pack: {max(forms, default=0) / 2**20:.1f} MiB")
    met = task[0] <= MOST_TASK and parsed[0] <= MOST_PARSE and parsed[1] <= MOST_PARSE_MIB
    return 0 if met else 1


def write_pack(folder: Path, maps: int) -> None:
    """Write data maps of 71 tables each, with a retention rule and an expectation per database."""
    (folder / "datamap").mkdir(parents=True)
    (folder / "quality").mkdir()
    retention = []
    for number in range(maps):
        name = f"db_{number:03}"
        lines = ["dataset:", f"  - fides_key: {name}", "    collections:"]
        for table in range(TABLES):
            lines += [f"      - name: table_{table:02}", "        fields:"]
            for column in COLUMNS:
                lines.append(f"          - name: {column}")
                if column in CATEGORIES:
                    lines.append(f"            data_categories: [{CATEGORIES[column]}]")
                if column == "id":
                    lines.append("            fides_meta: {primary_key: true, data_type: integer}")
        _write(folder / "datamap" / f"{name}.yaml", lines)
        suite = [
            f"- database: {name}",
            "  collection: table_00",
            "  expectations:",
            "    - id: no_name",
            "      type: expect_column_values_to_not_be_null",
            "      kwargs: {column: name}",
            "      severity: fail",
            '      clause: "4.1"',
            "      title: {en: The name is there, zh-CN: 姓名不为空}",
        ]
        _write(folder / "quality" / f"{name}.yaml", suite)
        retention += [
            f"- class: {name}.records",
            f"  database: {name}",
            "  collection: table_00",
            "  clock: created_at",
            "  period: P3Y",
            "  action: keep",
            "  basis: business",
        ]
    _write(folder / "retention.yaml", retention)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measured(before: str, code: str, folder: Path, home: Path) -> tuple[float, float]:
    """Return the CPU seconds of some code, and the peak memory of its process in MiB.

    Args:
        before: code that runs before the measurement.
        code: the measured code.
        folder: folder of the policy pack.
        home: home folder.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PARCELSEAL_POLICY": str(folder),
        "PARCELSEAL_HOME": str(home),
    }
    completed = subprocess.run(
        [sys.executable, "-c", _TIMED.format(before=before, code=code)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    seconds, memory = completed.stdout.split()[-2:]
    return float(seconds), float(memory)


def _median(measured: list[tuple[float, float]]) -> tuple[float, float]:
    seconds, memory = zip(*measured, strict=True)
    return statistics.median(seconds), statistics.median(memory)


def _show(name: str, measured: tuple[float, float]) -> None:
    seconds, memory = measured
    console.print(f"{name:42} {seconds:7.2f} s {memory:6.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
