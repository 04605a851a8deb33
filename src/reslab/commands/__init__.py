"""The commands: `entry.py` is what they share, `resume.py` continues a run, `printing.py` shows results."""
