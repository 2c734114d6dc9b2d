"""Execute a disposition plan: delete and mask records, and drop partitions."""
