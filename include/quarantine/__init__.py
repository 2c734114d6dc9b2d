"""Records that break a rule, by key and never by value, until a later check finds them good."""
