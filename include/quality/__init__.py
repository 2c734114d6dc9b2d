"""The workflow `check_quality`, which regularly checks formal records (policy clauses 4.1, 5.1)."""
