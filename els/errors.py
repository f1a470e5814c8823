"""Invalid user input. The message names the value, what was expected, and the fix."""


class InputError(ValueError):
    """Bad input from the user: a value, a file, a data set.

    Its message is one line that names the value, what was expected and what to do. The entry
    points print it and exit with code 2; everything else is a bug and keeps its traceback.
    """


def shown(value: object, *, length: int = 80) -> str:
    """A value out of a file in a message: one short line, whatever it is.

    What holds others is not spelt out: it could be without end.

    Example:
        >>> shown("cat"), shown(3), shown([[], []])
        ("'cat'", '3', 'a list')
    """
    if isinstance(value, str | bytes):
        return repr(value[:length])
    plain = value is None or isinstance(value, bool | int | float)
    return repr(value)[:length] if plain else f"a {type(value).__name__}"


def reason(error: BaseException, *, named: bool = False, length: int = 160) -> str:
    """What another library says went wrong, as one line of at most `length` characters.

    Args:
        error: what it raised.
        named: begin with the name of the error's class.
        length: the most characters.
    """
    text = f"{type(error).__name__}: {error}" if named else str(error)
    return " ".join(text.split())[:length]
