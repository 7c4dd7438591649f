"""One file per figure; each reads published csv files only."""
