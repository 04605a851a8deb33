"""What a user can get wrong: one line that says what is wrong and what to do."""


class UserError(Exception):
    """Shown as one line, exit status 2, without a traceback."""
