"""Compare logged accesses to customer records with approvals, exactly and by key."""
