"""Plans: tables of members become our own command lines, run in order as processes. It imports no stage."""
