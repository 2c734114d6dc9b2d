"""The proof of a run: count afterwards, requests, report."""
