"""Export lists as Excel workbooks and PDF files with the letterhead of the company."""
