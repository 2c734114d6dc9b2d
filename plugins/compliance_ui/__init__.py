"""The read-only compliance pages: control outcomes, evidence bundles and required actions."""

from include.orchestration.addresses import PAGES

NAME = "Compliance"
PREFIX = PAGES
