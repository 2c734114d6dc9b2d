"""The rights that workflows need in databases: declared once, checked live, listed in the docs."""
