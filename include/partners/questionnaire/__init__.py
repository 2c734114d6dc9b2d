"""The questionnaire as an Excel workbook: out to a partner, and back."""
