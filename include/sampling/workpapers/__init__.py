"""Workpapers as Excel workbooks: write them for auditors, read and check returned workbooks."""
