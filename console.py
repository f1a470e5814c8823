"""How training and analysis speak and end: bad input is one line and exit code 2."""

from __future__ import annotations

import difflib
import errno
import logging
import re
import sys
import traceback
import warnings
from argparse import RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBar
from rich.segment import Segment
from rich.text import Text

from els.configurations import check_readable, find_configuration
from els.errors import InputError, printable, reason

if TYPE_CHECKING:
    from els.work import Advance

_PLAIN_WIDTH = 120  # a table in a file or a log need not fit a window
_SECONDS_PER_LINE = 60


class _PlainConsole(Console):
    """Prints names and messages of others as text, with no control over the terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See `Console.render`."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


def _standard_output() -> Console:
    """Tables and colours on a terminal, plain lines anywhere else."""
    console = _PlainConsole(highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


console = _standard_output()


@contextmanager
def progress(name: str, total: int) -> Iterator[Advance]:
    """A progress bar over `total` images with the time left; lines when it is no terminal."""
    if not total:
        console.print(f"{name}: kept from before")
        yield lambda count: None
        return
    if not console.is_terminal:
        console.print(f"{name} ...")
        yield _Lines(name, total).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=console) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)


class _Lines:
    """Progress where nothing can be drawn over: a line a minute, with the time left."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0.0
        self.start = self.said = monotonic()

    def advance(self, count: float) -> None:
        """So many images more are done."""
        self.done += count
        now = monotonic()
        if now - self.said >= _SECONDS_PER_LINE and self.done > 0:
            self.said = now
            left = (now - self.start) * (self.total - self.done) / self.done
            share = f"{self.done:,.0f} of {plural(self.total, 'image')}"
            console.print(f"{self.name}: {share}, about {duration(left)} left")


def duration(seconds: float) -> str:
    """Such as "40 s", "12 min", "2 h 40 min" and "3 days"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{round(seconds)} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{round(hours / 24)} days"


def key_values(rows: Mapping[str, str]) -> Text:
    """A table of labels and values, a line each; long values such as paths are never broken."""
    width = max(map(cell_len, rows))
    lines = [
        Text.assemble((label.ljust(width), "bold cyan"), "  ", value)
        for label, value in rows.items()
    ]
    return Text("\n").join(lines)


def plural(number: int, noun: str) -> str:
    """Such as "1 image" and "1,437 images"."""
    if number != 1:
        noun = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun}"


_HINT = "(--help lists the options)"
# What jsonargparse says of values and of their types, and how people say it.
_WORDS = (
    (r'Parser key "([\w.]+)"', r"--\1"),
    (
        r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .* Given "
        r"value type: .*? Given value: ",
        r"Expected \1. Got value: ",
    ),
    (r"typing\.Literal\[(.*?)\]", r"one of \1"),
    (r"<class 'NoneType'>", "null"),
    (r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1"),
    (r"Expected an? ", "Expected "),
)


def _in_plain_words(message: str) -> str:
    """A message of the parser as one line, without the names of Python's types of types."""
    message = " ".join(message.split())
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message


def _suggestion(message: str, names: Iterable[str]) -> str:
    """Such as "; did you mean --seeds?" for the first name in a message that is nearly a known one.

    Names are those of options (--name) and what stands in quotes.
    """
    known = sorted(names)
    for dashes, quoted in re.findall(r"(?<![\w.-])(--[\w.-]+)|'([\w.]+)'", message):
        near = difflib.get_close_matches(dashes or quoted, known, n=1, cutoff=0.75)
        if near and near[0] != (dashes or quoted):
            return f"; did you mean {near[0]}?"
    return ""


class _HelpLines(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """jsonargparse's help, which keeps the lines of descriptions, such as examples."""


class Parser(ArgumentParser):
    """jsonargparse's parser with errors of one line, and configurations that have names.

    Attributes:
        config_folders: the flags that take configurations, and where each looks names up; see
            `els.configurations.find_configuration`. These are those of an analysis.
        switches: flags that are true or false, and may be given alone: --force, --no-mosaic.
        lists: flags of several values, which may be given as a,b or as words.
    """

    config_folders: Mapping[str, str] = MappingProxyType({"-c": "analysis", "--config": "analysis"})
    switches: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()

    def __init__(self, *args: Any, **options: Any) -> None:
        options = {"formatter_class": _HelpLines, "allow_abbrev": False, **options}
        super().__init__(*args, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by the parser: what it cannot parse is an `InputError`, without usage."""
        message = _in_plain_words(message.replace(_HINT, ""))
        message = re.sub(r"(?<=are required: )(?:\w+\.)?(\w+)", self._flag, message)
        raise InputError(f"{message}{_suggestion(message, self.known_names())} {_HINT}") from ex

    def known_names(self) -> set[str]:
        """The options and the sub-commands of this parser and of its sub-commands."""
        names: set[str] = set()
        for action in self._actions:
            names.update(action.option_strings)
            if isinstance(action, _SubParsersAction):
                names.update(action.choices)
                for parser in action.choices.values():
                    names |= parser.known_names()
        return names

    def parse_args(  # type: ignore[override] # as that of jsonargparse
        self, args: Sequence[str] | None = None, *rest: Any, **options: Any
    ) -> Namespace:
        """See `ArgumentParser.parse_args`."""
        args = sys.argv[1:] if args is None else args
        written = written_out(args, switches=self.switches, lists=self.lists)
        try:
            return super().parse_args(self._with_paths(written), *rest, **options)
        except InputError as error:
            for switch, value in zip(args, args[1:], strict=False):
                if switch in self.switches and f"unrecognized arguments: {value} " in str(error):
                    raise InputError(f"{switch} is '{value}'; it must be true or false") from error
            raise

    def _flag(self, name: re.Match[str]) -> str:
        """The option of that name; an argument without a flag as it is."""
        return f"--{name[1]}" if f"--{name[1]}" in self.known_names() else name[1]

    def _with_paths(self, args: Sequence[str]) -> list[str]:
        found: list[str] = []
        for arg in args:
            flag, equals, value = arg.partition("=")
            if equals and flag in self.config_folders:
                found.append(f"{flag}={self._path(flag, value)}")
            elif found and found[-1] in self.config_folders:
                found.append(self._path(found[-1], arg))
            else:
                found.append(arg)
        return found

    def _path(self, flag: str, value: str) -> str:
        if not value or ":" in value or value.startswith("-"):  # written out, or forgotten
            return value
        path = find_configuration(value, self.config_folders[flag])
        check_readable(path)
        return str(path)


_TRUTH = ("true", "false", "yes", "no")
_NOT_LISTS = ("all", "null")


def written_out(
    args: Sequence[str], *, switches: frozenset[str], lists: frozenset[str]
) -> list[str]:
    """Arguments as jsonargparse takes them; see `Parser` for switches and lists.

    Example:
        >>> switches, lists = frozenset({"--force", "--mosaic"}), frozenset({"--sizes"})
        >>> given = ["--force", "--no-mosaic", "--sizes", "3,5"]
        >>> written_out(given, switches=switches, lists=lists)
        ['--force=true', '--mosaic=false', '--sizes=[3,5]']
    """
    found, words = [], list(args)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        switch = re.sub("^--no[-_]", "--", flag)
        if flag in switches and not equals:
            told = words.pop(0) if words and words[0].lower() in _TRUTH else "true"
            word = f"{flag}={told}"
        elif switch in switches and switch != flag and not equals:
            word = f"{switch}=false"
        elif flag in lists:
            values = [value] if equals else []
            while not equals and words and not words[0].startswith("-"):
                values.append(words.pop(0))
            if values:
                word = f"{flag}={_as_list(','.join(values))}"
        found.append(word)
    return found


def _as_list(text: str) -> str:
    return text if text.startswith("[") or text in _NOT_LISTS else f"[{text}]"


class _PlainFormatter(logging.Formatter):
    """Of a log that is shown on the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return printable(super().format(record))


def keep_terminal_clean() -> None:
    """Give what others wrote no control over the terminal, in warnings, logs and tracebacks too.

    For a process that is a command, once: what this project prints itself is clean already.
    """
    formatted = warnings.formatwarning
    warnings.formatwarning = lambda *args, **more: printable(formatted(*args, **more))
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_PlainFormatter())
    sys.excepthook = lambda *error: sys.stderr.write(
        printable("".join(traceback.format_exception(*error)))
    )


@contextmanager
def exit_cleanly() -> Iterator[None]:
    """Turn what the user can mend into a line on standard error and exit code 2."""
    if isinstance(sys.stdout, TextIOWrapper):  # a name that its encoding lacks is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except InputError as error:
        _quit(str(error))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on: what is finished is kept", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search(_NO_MEMORY, str(error)):
            raise
        _quit(f"not enough memory ({reason(error) or 'of this machine'}); give fewer or smaller "
              "images, a smaller network, or a smaller --batch or --chunk")  # fmt: skip
    except OSError as error:
        if error.errno in _FULL:
            where = error.filename or "while writing results"
            _quit(
                f"the disk is full ({where}); free some space and run the same command again (of a "
                "training: with --ckpt_path last)"
            )
        name = error.filename2 or error.filename  # of a renaming, what it would have been called
        if name is None:
            raise
        way_out = _WAYS_OUT.get(error.errno or 0, "give another path, or mend this one")
        _quit(f"'{str(name)[:200]}': {error.strerror}; {way_out}")


# How PyTorch says that an allocation failed, on a CPU and on a GPU.
_NO_MEMORY = "can't allocate memory|not enough memory|out of memory"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WAYS_OUT = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a part of it is a file; give a folder",
    errno.EEXIST: "there is a file of that name; give a folder",
    errno.EISDIR: "there is a folder of that name; give a file",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "it may not be written or read here; choose another folder or change its permissions",
    ),
}


def _quit(message: str) -> None:
    line = " ".join(message.split("\n"))
    print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(2)
