"""Any of our command lines, on a cluster. Knows argument lists, never models."""
