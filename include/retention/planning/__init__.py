"""Make the disposition plan of a run, check its limits, and request its approval."""
