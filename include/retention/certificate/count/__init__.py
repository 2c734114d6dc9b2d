"""The independent count of remaining records; it uses nothing of planning and execution."""
