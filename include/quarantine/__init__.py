"""The quarantine, a register of the records that break an expectation.

It stores the keys of these records, and no other values of them.
"""
