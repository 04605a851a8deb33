"""`python src/check_data.py` is `reslab check_data`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("check_data")
