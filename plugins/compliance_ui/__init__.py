"""The compliance pages: what held, how old the proof is, and what waits for whom. Read only."""

NAME = "Compliance"
PREFIX = "/compliance"
