"""The time limits of an incident: deadlines, lateness, notifications and response times."""
