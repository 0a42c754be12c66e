"""A run directory, and what keeps it going."""
