"""Transient database logins that read the approved columns of the approved records."""
