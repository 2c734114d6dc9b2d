"""By when what is due, whether it was done, who is woken, and how long it took."""
