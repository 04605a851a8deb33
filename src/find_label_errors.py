"""`python src/find_label_errors.py` is `reslab find_label_errors`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("find_label_errors")
