"""Import rosters, courses and completions from CSV files. A file that has any fault is refused."""
