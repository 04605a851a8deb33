"""`python src/export.py` is `reslab export`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("export")
