"""`check_quality`: formal records are checked again and again (policy 4.1, 5.1)."""
