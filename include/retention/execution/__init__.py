"""The execution of a plan: transactions, batches, partitions, cycles."""
