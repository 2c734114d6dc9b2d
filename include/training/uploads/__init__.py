"""Roster, courses and completions from CSV files, read strictly: all of a file is taken or none."""
