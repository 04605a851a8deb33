"""`python src/report.py` is `reslab report`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("report")
