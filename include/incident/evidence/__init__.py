"""Securing evidence: access logs copied and sealed, the list of people, legal holds."""
