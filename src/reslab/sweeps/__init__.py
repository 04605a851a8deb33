"""Sweeps: `jobs.py` runs their jobs, `search.py` asks Optuna for them, `pruning.py` ends some, `summary.py` sums up."""
