"""The policy pack: what a company changes, and its typed loader."""

from include.policy.loader import SHIPPED
from include.policy.model import PackFile, PolicyPack
from include.policy.problems import PackError, PackProblem

__all__ = ["SHIPPED", "PackError", "PackFile", "PackProblem", "PolicyPack"]
