"""What is done with a trained network: `loading.py` reads it, `evaluation.py` tests it, `prediction.py` uses it."""
