"""A trained run becomes something others can run: a file, a server, an index."""
