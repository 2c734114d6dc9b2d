"""Communication about an incident: authority reports, notices to affected people, addresses."""
