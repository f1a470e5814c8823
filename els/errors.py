"""Invalid user input. The message names the value, what was expected, and the fix."""

import re


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


def check_between(name: str, value: float, low: float, high: float | None = None) -> None:
    """Refuse a number that is below `low` or above `high`, or NaN.

    Raises:
        InputError: with its name and the range.

    Example:
        >>> check_between("steps", 0, 1)
        Traceback (most recent call last):
        els.errors.InputError: steps is 0; it must be at least 1
    """
    if not value >= low:
        raise InputError(f"{name} is {value}; it must be at least {low}")
    if high is not None and value > high:
        raise InputError(f"{name} is {value}; it must be at most {high:,}")


def check_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Refuse what is no whole number, or is below `low` or above `high`.

    Raises:
        InputError: with its name and the range.

    Example:
        >>> check_whole("depth", 2.5, 0)
        Traceback (most recent call last):
        els.errors.InputError: depth is 2.5; it must be a whole number of at least 0
    """
    if not isinstance(value, int) or isinstance(value, bool):
        told = repr(value)[:80]
        raise InputError(f"{name} is {told}; it must be a whole number of at least {low}")
    check_between(name, value, low, high)


# What moves a terminal's cursor, changes its colours or turns the direction of text.
_CONTROL = re.compile("[\0-\b\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text of others for a terminal or a log: control characters as they are written in Python."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def reason(error: BaseException, *, named: bool = False, length: int = 160) -> str:
    """What another library says went wrong, as one line of at most `length` characters.

    Args:
        error: what it raised.
        named: begin with the name of the error's class.
        length: the most characters.
    """
    text = f"{type(error).__name__}: {error}" if named else str(error)
    return " ".join(text.split())[:length]
