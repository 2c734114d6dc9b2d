"""Declarations of the database rights that workflows need, and checks that logins have them."""
