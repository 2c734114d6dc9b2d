"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
By = Annotated[str, typer.Option("--by", help="User id of the person.")]
