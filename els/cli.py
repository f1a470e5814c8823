"""How the entry points end: bad input and a full disk are one line and exit code 2."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from els.errors import InputError


@contextmanager
def exit_cleanly() -> Iterator[None]:
    """Turn what the user can mend into a line on standard error and exit code 2."""
    try:
        yield
    except InputError as error:
        _quit(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _quit(f"the disk is full ({error.filename or 'while writing results'}); free some space "
              "and run the same command again")  # fmt: skip


def _quit(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
