"""The words of a command of training: what is left out in them, and the command that goes on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from els.errors import InputError
from els.reading import as_options, member, read_text

_WIDTH = 66  # of a line of a command, which stands beside a label
_ONCE = ("--ckpt_path", "--run.overwrite")  # what is said of one start alone


class Command:
    """A command of training, such as `python train.py fit --config digits_resnet`.

    Args:
        program: the file that was called, as in sys.argv.
        args: what follows it.
    """

    def __init__(self, program: str, args: Sequence[str]) -> None:
        self.args = list(args)
        in_clone = Path(program).name != "els-train"
        self.train = "python train.py" if in_clone else "els-train"
        self.analyze = "python analyze.py" if in_clone else "els-analyze"

    def option(self, name: str) -> str | None:
        """The last value of an option, or None."""
        found = None
        for arg, value in zip(self.args, [*self.args[1:], ""], strict=True):
            if arg == name:
                found = value
            elif arg.startswith(f"{name}="):
                found = arg.partition("=")[2]
        return found

    def complete(self) -> list[str]:
        """The arguments; those of a run that is only named are taken from its own configuration."""
        args = [arg if arg != "--help_all" else "--help" for arg in self.args]
        if args[:1] == ["fit"] and (of := self.option("--run.twin_of")):
            return ["fit", *self._twin(Path(of)), *args[1:]]
        name, configured = self.option("--run.name"), self.option("--config") or self.option("-c")
        begins = args[:1] == ["fit"] and self.option("--ckpt_path") != "last"
        if begins or not name or configured:
            return args
        config = Path(self.option("--run.dir") or "runs") / name / "config.yaml"
        return [args[0], "--config", str(config), *args[1:]] if config.is_file() else args

    def _twin(self, folder: Path) -> list[str]:
        """The options of a run, with the next seed of weights and noise and a name that says it.

        Raises:
            InputError: when there is no such run, or its configuration has no seed.
        """
        config = folder / "config.yaml"
        try:
            told = as_options(read_text(member(folder, config)), config)
            name, given = told["run"]["name"], int(told["seed_everything"] or 0)
            noise = int(told.get("model", {}).get("seed", 0))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"'{folder}' is no run with a config.yaml of training; --run.twin_of takes the "
                "folder of one, such as runs/digits_resnet"
            ) from error
        asked = self.option("--seed_everything") or str(given + 1)
        if not asked.isdecimal() or int(asked) == given:
            raise InputError(
                f"--seed_everything is {asked}; a twin of '{folder}' has a seed other than {given}"
            )
        return [
            *("--config", str(config)),
            *("--seed_everything", asked),
            # The choice and the division of the images are of data.seed, which stays.
            *("--model.seed", str(max(0, noise + int(asked) - given))),
            *("--run.dir", str(folder.parent)),
            *("--run.name", f"{name}_seed{asked}"),
        ]

    def going_on(self) -> str:
        """The command that goes on with the run, in lines that can be pasted."""
        lines = [self.train]
        for words in _options([*self._lasting(), "--ckpt_path", "last"]):
            if len(lines[-1]) + len(words) > _WIDTH:
                lines.append("   ")
            lines[-1] += f" {words}"
        return " \\\n".join(lines)

    def _lasting(self) -> list[str]:
        """The arguments without those of one start alone, and without their values."""
        kept: list[str] = []
        skipping = False
        for arg in self.args:
            skipping, skipped = False, skipping
            if arg in _ONCE:
                skipping = True
            elif skipped and not arg.startswith("-"):
                continue
            elif arg.partition("=")[0] not in _ONCE:
                kept.append(arg)
        return kept


def _options(args: Sequence[str]) -> list[str]:
    """Quoted words, each option with its values."""
    found: list[str] = []
    for arg in args:
        if found and not arg.startswith("-") and found[-1].startswith("-"):
            found[-1] += f" {shlex.quote(arg)}"
        else:
            found.append(shlex.quote(arg))
    return found
