"""`python src/report.py` is `reslab report`, without an installation of the command."""

from reslab.commands.report import main

if __name__ == "__main__":
    main()
