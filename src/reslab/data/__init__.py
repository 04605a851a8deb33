"""Data sets: `base.py` holds what they share, `batches.py` orders and loads batches, `augmentation.py` changes them."""
