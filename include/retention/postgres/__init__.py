"""PostgreSQL access that planning, execution and verification of dispositions share.

The package contains sessions, tables, key types and counters of changed rows.
"""
