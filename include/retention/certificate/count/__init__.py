"""Count the expired records that remain after a disposition, to verify the disposition.

The queries of this package are independent of the queries that plan and execute the disposition.
The module `inspection` lists the few parts that are shared.
"""
