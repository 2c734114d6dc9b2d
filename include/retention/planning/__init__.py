"""What a run deletes and masks, and why: plan, limits, approval."""
