"""How good a model is, at every level of the tree: predictions, metrics."""
