"""Reports: `runs.py` reads runs, `leaderboard.py` ranks them, `page.py` draws report.html, `comparison.py` compares."""
