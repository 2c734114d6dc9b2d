"""A contract for Import Linter whose layer of workflows is read from the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from importlinter.contracts.layers import LayersContract

WORKFLOWS = "WORKFLOWS"
"""Stands for the packages of all workflows, which do not import each other."""

_DECLARATION = re.compile(r'"include\.(\w+)\.workflow:\w+"')


class RegistryLayersContract(LayersContract):
    """A layers contract in which the layer `WORKFLOWS` stands for the packages of the registry."""

    def __init__(
        self, name: str, session_options: dict[str, Any], contract_options: dict[str, Any]
    ) -> None:
        registry = Path("include/registry.py").read_text(encoding="utf-8")
        packages = " | ".join(sorted(set(_DECLARATION.findall(registry))))
        layers = [packages if layer == WORKFLOWS else layer for layer in contract_options["layers"]]
        super().__init__(name, session_options, contract_options | {"layers": layers})
