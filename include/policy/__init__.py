"""The policy pack: YAML files that a company adapts, and the loader that validates them."""

from include.policy.loader import SHIPPED
from include.policy.model import PackFile, PolicyPack
from include.policy.problems import PackError, PackProblem

__all__ = ["SHIPPED", "PackError", "PackFile", "PackProblem", "PolicyPack"]
