"""The one exception that means: what was asked for cannot be done, and here is the way out."""


class InputError(ValueError):
    """Bad input from the user: a value, a file, a data set.

    Its message is one line that names the value, what was expected and what to do. The entry
    points print it and exit with code 2; everything else is a bug and keeps its traceback.
    """
