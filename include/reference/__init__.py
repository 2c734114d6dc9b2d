"""Generates reference pages of docs/ from declarations in the code."""
