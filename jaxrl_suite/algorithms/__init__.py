"""Algorithms: one file per paper, over shared parts."""
