"""The read-only compliance pages: control outcomes, evidence bundles and required actions."""

NAME = "Compliance"
PREFIX = "/compliance"
