"""Test that follows the tutorial "Your own database in an hour" with a shop's database."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from include.local.profile import LocalProfile
from include.service_container import ROOT
from include.services.programs import program_folder
from tests.e2e.conftest import Cli
from tests.e2e.corpus.schemas import Schema
from tests.support.forking import run_forked

pytestmark = pytest.mark.airflow

PAGE = (ROOT / "docs" / "tutorials" / "your-own-database.md").read_text(encoding="utf-8")
_BLOCK = re.compile(
    r"(?P<before>[^\n]*)\n\n```(?P<kind>sh|sql|yaml)\n(?P<text>.*?)^```$", re.S | re.M
)
_FILE = re.compile(r"`(my-pack/[^`]+)`")
_BELOW = re.compile(r"below `([^`]+)`")
OWNER = "stranger"
# `./parcelseal` of the tutorial: sends the command to the test, which has imported Airflow.
CLIENT = f"""#!{sys.executable} -ES
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.environ["TEST_COMMANDS"])
    request = {{"words": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}}
    server.sendall(json.dumps(request).encode() + b"\\n")
    answer = json.loads(server.makefile().readline())
sys.stdout.write(answer["out"])
sys.stderr.write(answer["err"])
sys.exit(answer["code"])
"""


def script() -> str:
    """Return the code blocks of the tutorial as one shell script."""
    parts = ["set -euo pipefail"]
    for block in _BLOCK.finditer(PAGE):
        text, before = block["text"], block["before"]
        match block["kind"]:
            case "sh":
                parts.append(text)
            case "sql":
                parts.append(f'psql "$SHOP_ADMIN" -v ON_ERROR_STOP=1 -q <<"END"\n{text}END')
            case "yaml":
                (file,) = _FILE.findall(before)
                (below,) = _BELOW.findall(before) or [""]
                parts.append(f"python3 -c {_quoted(_insert(file, below, text))}")
    return "\n".join(parts)


def _insert(file: str, below: str, text: str) -> str:
    """Return a Python program that inserts text below a line of a file, or writes a new file.

    Args:
        file: path of the file.
        below: the line below which the text is inserted; empty to write a new file.
        text: the text.
    """
    return textwrap.dedent(f"""
        from pathlib import Path
        file, below, text = Path({file!r}), {below!r}, {text!r}
        content = file.read_text() if below else ""
        assert content.count(below + chr(10)) == 1 or not below, below
        file.write_text(content.replace(below + chr(10), below + chr(10) + text) if below else text)
    """)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _is_setting(variable: tuple[str, str]) -> bool:
    return variable[0].startswith(("AIRFLOW_CONN", "PARCELSEAL_"))


@pytest.fixture
def commands(cli: Cli, tmp_path: Path) -> Iterator[Path]:
    """A socket that receives the tutorial's commands and runs them in forked processes."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = json.loads(self.rfile.readline())
            words, environment = request["words"], request["environment"]
            if words[0] == "run":
                own = {
                    k: v for k, v in environment.items() if k.startswith(("AIRFLOW_CONN", "PARC"))
                }
                completed = cli.call(*words, **own)
            else:
                completed = run_forked(
                    "include.cli.app", *words, cwd=request["folder"], env=environment
                )
            answer = {
                "code": completed.returncode,
                "out": completed.stdout,
                "err": completed.stderr,
            }
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    address = tmp_path / "commands"
    with socketserver.UnixStreamServer(str(address), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def test_commands_of_the_tutorial_succeed_and_their_evidence_is_verified(
    cli: Cli, commands: Path, tmp_path: Path
) -> None:
    """Every command succeeds. Afterwards exactly the expired records are deleted.

    The test of the corpus maps the same shop under another name, because the erasure ledger
    identifies databases by this name.
    """
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{OWNER}'".encode())
        own = f"dbname=stranger_shop user={OWNER} password={OWNER}"
        Schema("webshop").create(admin, OWNER, f"{cli.postgres('postgres')} {own}", "stranger_shop")
    (tmp_path / "parcelseal").write_text(CLIENT)
    (tmp_path / "parcelseal").chmod(0o755)
    folder = str(LocalProfile(cli.services.home).postgres.socket_folder).replace("/", "%2F")
    environment = {
        **cli.environment,
        "PATH": f"{program_folder()}:{os.environ['PATH']}",
        "TEST_COMMANDS": str(commands),
        "SHOP": f"postgresql://shop_reader@{folder}/stranger_shop",
        "SHOP_URI": cli.uri("stranger_shop", "shop_reader", "secret"),
        "SHOP_RETENTION_URI": cli.uri("stranger_shop", "shop_retention", "secret%20too"),
        "SHOP_ADMIN": cli.postgres("stranger_shop"),
    }
    completed = subprocess.run(
        ["bash", "-x"], input=script(), check=False, capture_output=True, text=True,
        cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    with psycopg.connect(cli.postgres("stranger_shop")) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM wishlist), (SELECT count(*) FROM customer_entity)"
        ).fetchone()
    assert counts == (0, 500)
