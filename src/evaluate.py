"""`python src/evaluate.py` is `reslab evaluate`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("evaluate")
