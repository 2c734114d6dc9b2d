"""What authorities and affected people are told: documents, letters, addresses, notices."""
