"""Workpapers as Excel workbooks: written for the auditors, read back and checked."""
