"""One module per question: `python -m experiments.NAME --help`."""
