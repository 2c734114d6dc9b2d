"""PostgreSQL as planning, execution and count use it: sessions, tables, keys, counters."""
