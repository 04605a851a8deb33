"""Data sets: `base.py` is what they share, `batches.py` orders and loads, `transforms.py` augments."""
