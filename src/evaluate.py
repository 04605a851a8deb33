"""`python src/evaluate.py` is `reslab evaluate`, without an installation of the command."""

from reslab.commands.evaluate import main

if __name__ == "__main__":
    main()
