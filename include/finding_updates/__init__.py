"""The workflow `update_finding`: people record comments and decisions about findings."""
