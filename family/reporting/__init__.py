"""The page, the tables and the summary of an evaluation."""
