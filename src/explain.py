"""`python src/explain.py` is `reslab explain`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("explain")
