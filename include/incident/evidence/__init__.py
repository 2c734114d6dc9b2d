"""The preserved evidence of an incident: sealed log extracts, the list of people, legal holds."""
