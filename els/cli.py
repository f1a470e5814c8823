"""How the entry points end: bad input and a full disk are one line and exit code 2."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from els.errors import InputError


class OneLineErrors:
    """Mixed into a jsonargparse parser: what it cannot parse is an `InputError`, without usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by the parser."""
        raise InputError(" ".join(f"{message} (--help lists the options)".split())) from ex


@contextmanager
def exit_cleanly() -> Iterator[None]:
    """Turn what the user can mend into a line on standard error and exit code 2."""
    try:
        yield
    except InputError as error:
        _quit(str(error))
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _quit(f"the disk is full ({error.filename or 'while writing results'}); free some space "
              "and run the same command again")  # fmt: skip


def _quit(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
