"""The workflows `use_information` and `expire_grants`: approved use of customer information."""
