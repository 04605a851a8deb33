"""Reports on finished runs: a leaderboard, the page report.html, and the comparison of two configurations.

`entries.py` reads runs, `configurations.py` groups those that differ only in their seeds, and `leaderboard.py` makes a
report of them. `terminal.py` prints it and `writing.py` writes its files.
"""
