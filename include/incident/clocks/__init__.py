"""The clocks of an incident: due times, lateness, notifications and response times."""
