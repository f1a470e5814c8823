"""Bad inputs of every kind: a command line, what is on disk, and what the one line must say.

In a command "@" stands for the folder that a case is tried in. There lies `@/good`, a run whose
checkpoint is whole; whatever else a case needs is made by its `make`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from els.models.checkpoints import METADATA_KEY

Make = Callable[[Path], object]
GOOD = "good/checkpoints/last.ckpt"


@dataclass(frozen=True)
class Bad:
    """A bad input.

    Attributes:
        command: the command line, "train ..." or "analyze ...", as one would type it.
        says: what the line must contain: the value, what was expected, the way out.
        make: puts on disk what the command needs, in the folder it is given.
        environment: variables that are set.
    """

    command: str
    says: tuple[str, ...]
    make: Make = lambda folder: None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the list of tests."""
        made = getattr(self.make, "__name__", "").strip("<>").replace("lambda", "")
        told = " ".join(f"{key}={value}" for key, value in self.environment.items())
        return " ".join(part for part in (made, told, self.command[:90]) if part)


def bad(command: str, *says: str, make: Make | None = None, **environment: str) -> Bad:
    return Bad(command, says, make or (lambda folder: None), environment)


def named(name: str) -> Callable[[Make], Make]:
    """Give what a builder returns a name of its own, for the list of tests."""

    def give(make: Make) -> Make:
        make.__name__ = name
        return make

    return give


# --- what is put on disk ----------------------------------------------------------------------


def file(name: str, content: bytes | str = b"") -> Make:
    data = content.encode() if isinstance(content, str) else content

    @named(f"{name} {data[:30]!r}")
    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return make


def folder_of(name: str, *files: tuple[str, bytes | str]) -> Make:
    @named(f"{name} {files[-1][:1] if files else ()} {zlib.crc32(repr(files).encode()):x}")
    def make(folder: Path) -> None:
        (folder / name).mkdir(parents=True)
        for one, content in files:
            file(f"{name}/{one}", content)(folder)

    return make


def png(width: int = 8, height: int = 8, mode: str = "L", value: int = 128) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), value).save(buffer, "png")
    return buffer.getvalue()


def tiff(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "tiff")
    return buffer.getvalue()


def huge_png() -> bytes:
    """A header that tells of 60,000 x 60,000 pixels, and nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


PICTURES = tuple((f"{i}.png", png(value=i)) for i in range(12))


def zipped(name: str, members: Mapping[str, bytes] | None = None) -> Make:
    """A zip of twelve pictures and the members given."""

    @named(f"{name} {members}"[:80])
    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for one, content in {**dict(PICTURES), **(members or {})}.items():
                archive.writestr(one, content)

    return make


def labelled(name: str, labels: object) -> Make:
    """A zip whose dataset.json says so."""
    return zipped(name, {"dataset.json": json.dumps({"labels": labels}).encode()})


def all_but(label: object) -> list[list[object]]:
    """Labels of all pictures, the last of which is this one."""
    return [[one, 0] for one, _ in PICTURES[:-1]] + [[PICTURES[-1][0], label]]


def patched(name: str, change: Callable[[bytearray], None]) -> Make:
    """A zip of which some bytes are changed."""

    @named(f"{name} {change.__name__.strip('_')}")
    def make(folder: Path) -> None:
        zipped(name)(folder)
        data = bytearray((folder / name).read_bytes())
        change(data)
        (folder / name).write_bytes(data)

    return make


def _encrypted(data: bytearray) -> None:
    for start, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        where = data.find(start)
        while where >= 0:
            data[where + at] |= 1
            where = data.find(start, where + 4)


def _unknown_method(data: bytearray) -> None:
    for start, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        where = data.find(start)
        while where >= 0:
            data[where + at] = 77
            where = data.find(start, where + 4)


def _bad_crc(data: bytearray) -> None:
    where = data.find(b"IDAT")
    data[where + 6] ^= 0xFF


def checkpoint(name: str, change: Callable[[dict[str, Any]], Any]) -> Make:
    """`@/run/checkpoints/last.ckpt`, changed from the good one."""

    @named(name)
    def make(folder: Path) -> None:
        content = torch.load(folder / GOOD, weights_only=True)
        changed = change(content)
        path = folder / "run/checkpoints/last.ckpt"
        path.parent.mkdir(parents=True)
        torch.save(content if changed is None else changed, path)

    return make


def meta(**changes: object) -> Make:
    """Of the good checkpoint's metadata, some are others: data__size=..., image_shape=..."""

    def change(content: dict[str, Any]) -> None:
        for key, value in changes.items():
            part = content[METADATA_KEY]
            *path, last = key.split("__")
            for step in path:
                part = part[step]
            part[last] = value

    return checkpoint(" ".join(f"{key}={value!r}"[:40] for key, value in changes.items()), change)


def weights(name: str, change: Callable[[Tensor], Tensor]) -> Make:
    """Of the good checkpoint's weights, the first that is a matrix is changed."""

    def apply(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        key = next(key for key, value in state.items() if value.ndim == 2)
        state[key] = change(state[key])

    return checkpoint(name, apply)


def every_weight(name: str, change: Callable[[Tensor], Tensor]) -> Make:
    def apply(content: dict[str, Any]) -> None:
        content["state_dict"] = {k: change(v) for k, v in content["state_dict"].items()}

    return checkpoint(name, apply)


def damaged(name: str, change: Callable[[bytes], bytes]) -> Make:
    """`@/run/checkpoints/last.ckpt`, of other bytes than the good one."""

    @named(name)
    def make(folder: Path) -> None:
        file("run/checkpoints/last.ckpt", change((folder / GOOD).read_bytes()))(folder)

    return make


class Harmful:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/els-was-here",)


def pickled(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def bomb() -> str:
    """YAML of nine aliases of nine aliases of ..."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    names = "abcdefgh"
    for before, name in zip(names, names[1:], strict=False):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


def finished(name: str, change: Callable[[Path], object]) -> Make:
    """`@/done/analysis`, a finished analysis that was changed."""

    @named(name)
    def make(folder: Path) -> None:
        from made_results import made_results

        analysis = folder / "done/analysis"
        made_results(["boundary", "ideal"]).save(analysis)
        change(analysis)

    return make


def others_of(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def rewritten(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def in_json(name: str, **changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return change


# --- the table --------------------------------------------------------------------------------

FIT = "train fit --config digits_resnet"
NET = f"{FIT} --model.net.init_args"
GO = "analyze @/good"
RUN = "analyze @/run"

TRAIN = [
    bad("train fitt", "fitt", "fit"),
    bad("train fit now", "now", "--help"),
    bad(f"{FIT} --data.size x", "--data.size", "int", "x"),
    bad(f"{FIT} --data.size 2", "size is 2", "at least 4"),
    bad(f"{FIT} --data.size -5", "size is -5", "at least 4"),
    bad(f"{FIT} --data.size 1000000", "size is 1000000", "at most"),
    bad(f"{FIT} --data.channels 2", "channels is 2", "1 (grey) or 3 (colour)"),
    bad(f"{FIT} --data.limit 0", "limit is 0", "at least 1"),
    bad(f"{FIT} --data.limit -3", "limit is -3", "at least 1"),
    bad(f"{FIT} --data.limit ten", "--data.limit", "int", "ten"),
    bad(f"{FIT} --data.val_limit 0", "val_limit is 0", "at least 1"),
    bad(f"{FIT} --data.val_limit -2", "val_limit is -2", "at least 1"),
    bad(f"{FIT} --data.batch_size 0", "batch_size is 0", "at least 1"),
    bad(f"{FIT} --data.batch_size 1.5", "--data.batch_size", "int", "1.5"),
    bad(f"{FIT} --data.seed -1", "seed is -1", "at least 0"),
    bad(f"{FIT} --data.seed {2**80}", f"seed is {2**80}", "at most"),
    bad(f"{FIT} --data.name digit", "digit", "digits"),
    bad(f"{FIT} --data.conditional maybe", "--data.conditional", "true or false", "maybe"),
    bad(f"{FIT} --data.download perhaps", "--data.download", "true or false", "perhaps"),
    bad(f"{FIT} --data.name folder --data.root @/nowhere", "@/nowhere", "give the folder"),
    bad(f"{FIT} --data.name folder --data.root ''", "root", "folder"),
    bad(f"{FIT} --data.name zip --data.root @/nowhere.zip", "@/nowhere.zip", "zip file itself"),
    bad(f"{FIT} --data.name zip --data.root @/good", "@/good", "zip file itself"),
    bad(f"{FIT} --data.name folder --data.root @/{GOOD}", GOOD, "give the folder"),
    bad(f"{FIT} --data.name mnist --data.root @/empty", "MNIST", "@/empty", "--data.download true"),
    bad(f"{FIT} --data.name cifar10 --data.root @/empty", "CIFAR10", "@/empty", "--data.download"),
    bad(f"{FIT} --data.name celeba --data.root @/empty", "CelebA", "@/empty", "--data.download"),
    bad(f"{FIT} --data.name folder --data.root 'a\0b'", "a\\x00b", "name of a folder or file"),
    bad(f"{FIT} --model.net NoNetwork", "NoNetwork", "--help"),
    bad(f"{FIT} --model.net os.system", "os.system"),
    bad(f"{FIT} --model.net.class_path torch.nn.Linear", "torch.nn.Linear", "Network"),
    bad(f"{NET}.width 0", "width is 0", "at least 16"),
    bad(f"{NET}.width -16", "width is -16", "at least 16"),
    bad(f"{NET}.width 20", "width is 20", "multiple of 8"),
    bad(f"{NET}.width 8000000", "width is 8000000", "at most"),
    bad(f"{NET}.width wide", "width", "int", "wide"),
    bad(f"{NET}.depth -1", "depth is -1", "at least 0"),
    bad(f"{NET}.depth 10000000", "depth is 10000000", "at most"),
    bad(f"{NET}.kernel 0", "kernel is 0", "at least 1"),
    bad(f"{NET}.kernel 2", "kernel is 2", "odd"),
    bad(f"{NET}.kernel 999", "kernel is 999", "at most"),
    bad(f"{NET}.last_kernel -3", "last_kernel is -3", "at least 1"),
    bad(f"{NET}.padding reflect", "padding is 'reflect'", "zeros, circular"),
    bad(f"{NET}.norm batch", "norm is 'batch'", "none, group"),
    bad(f"{NET}.wdith 32", "wdith", "did you mean width"),
    bad(
        "train fit --config digits_unet --model.net.init_args.widths []",
        "widths is empty",
        "at least one level",
    ),
    bad(
        "train fit --config digits_unet --model.net.init_args.widths [0,16]",
        "widths[0] is 0",
        "at least 1",
    ),
    bad("train fit --config digits_unet --model.net.init_args.attention [9]", "attention", "9"),
    bad(
        "train fit --config digits_unet --model.net.init_args.embedding 3",
        "embedding is 3",
        "at least 4",
    ),
    bad("train fit --config digits_unet --data.size 10", "10 x 10", "multiples of 4"),
    bad(f"{FIT} --model.optimizer NoOptimizer", "NoOptimizer", "--help"),
    bad(f"{FIT} --model.optimizer.lr -1", "-1", "--model.optimizer.lr"),
    bad(f"{FIT} --model.optimizer.lr fast", "lr", "float", "fast"),
    bad(f"{FIT} --model.learning_rate 1", "learning_rate", "did you mean lr"),
    bad(f"{FIT} --model.scheduler.warmup_steps -3", "warmup_steps is -3", "at least 0"),
    bad(f"{FIT} --ema.decay 1", "ema.decay is 1", "below 1"),
    bad(f"{FIT} --ema.decay -0.1", "ema.decay is -0.1", "at least 0"),
    bad(f"{FIT} --ema.decay nan", "--ema.decay", "float", "nan"),
    bad(f"{FIT} --samples.count 0", "samples.count is 0", "at least 1"),
    bad(f"{FIT} --samples.count -1", "samples.count is -1", "at least 1"),
    bad(f"{FIT} --samples.steps 0", "samples.steps is 0", "at least 1"),
    bad(f"{FIT} --samples.every_n_epochs -1", "samples.every_n_epochs is -1", "at least 0"),
    bad(f"{FIT} --trainer.accelerator gpu", "gpu", "--trainer.accelerator"),
    bad(f"{FIT} --trainer.accelerator foo", "foo", "--trainer.accelerator"),
    bad(f"{FIT} --trainer.accelerator tpu", "tpu", "--trainer.accelerator"),
    bad(f"{FIT} --trainer.devices 0", "devices", "0"),
    bad(f"{FIT} --trainer.devices x", "devices", "x"),
    bad(f"{FIT} --trainer.devices -5 --trainer.accelerator cpu", "devices", "-5"),
    bad(f"{FIT} --trainer.strategy foo", "foo", "strategy"),
    bad(f"{FIT} --trainer.precision 8", "precision", "8"),
    bad(f"{FIT} --trainer.max_epochs x", "max_epochs", "int", "x"),
    bad(f"{FIT} --trainer.max_epochs -5", "max_epochs", "-5"),
    bad(f"{FIT} --trainer.max_steps -7", "max_steps", "-7"),
    bad(f"{FIT} --trainer.num_nodes 0", "num_nodes is 0", "at least 1"),
    bad(f"{FIT} --trainer.num_nodes 2", "num_nodes is 2", "torchrun"),
    bad(f"{FIT} --trainer.check_val_every_n_epoch 0", "check_val_every_n_epoch is 0", "at least 1"),
    bad(f"{FIT} --trainer.val_check_interval 2.5", "2.5", "val_check_interval"),
    bad(f"{FIT} --trainer.accumulate_grad_batches 0", "accumulate_grad_batches", "0"),
    bad(f"{FIT} --trainer.log_every_n_steps -1", "log_every_n_steps is -1", "at least"),
    bad(f"{FIT} --trainer.limit_train_batches -1", "limit_train_batches", "-1"),
    bad(f"{FIT} --trainer.limit_val_batches 7.5", "limit_val_batches", "7.5"),
    bad(f"{FIT} --trainer.gradient_clip_algorithm foo", "foo", "gradient_clip_algorithm"),
    bad(f"{FIT} --trainer.profiler foo", "foo", "profiler"),
    bad(f"{FIT} --trainer.plugins foo", "foo", "plugins"),
    bad(f"{FIT} --trainer.logger true", "--trainer.logger", "--run.logger"),
    bad(f"{FIT} --trainer.callbacks NoCallback", "NoCallback", "callbacks"),
    bad(f"{FIT} --trainer.max_epoch 3", "max_epoch", "did you mean --trainer.max_epochs"),
    bad(f"{FIT} --seed_everything -1", "seed_everything is -1", "at least 0"),
    bad(f"{FIT} --seed_everything {2**40}", f"seed_everything is {2**40}", "at most 4,294,967,295"),
    bad(f"{FIT} --seed_everything dice", "seed_everything", "int", "dice"),
    bad(f"{FIT} --run.name ''", "run.name is ''", "the name of one folder"),
    bad(f"{FIT} --run.name ..", "run.name is '..'", "the name of one folder"),
    bad(f"{FIT} --run.name a/b", "run.name is 'a/b'", "the name of one folder"),
    bad(f"{FIT} --run.name 'a\nb'", "run.name is 'a\\nb'", "the name of one folder"),
    bad(f"{FIT} --run.name=-x", "run.name is '-x'", "begin with a dash"),
    bad(f"{FIT} --run.name {'n' * 300}", "nnn", "shorter"),
    bad(f"{FIT} --run.logger mlflow", "mlflow", "run.logger"),
    bad(f"{FIT} --run.dir @ --run.name good", "@/good", "--ckpt_path last"),
    bad(f"{FIT} --run.dir @/{GOOD}", GOOD, "a folder"),
    bad(f"{FIT} --run.dir /dev/null", "/dev/null", "a folder"),
    bad(f"{FIT} --run.dir /proc/nowhere", "/proc/nowhere"),
    bad(
        f"{FIT} --run.dir @ --run.name photos --run.overwrite",
        "@/photos",
        "not a run",
        "another --run.name",
        make=folder_of("photos", ("me.txt", "mine")),
    ),
    bad(
        f"{FIT} --run.dir @ --run.name good --run.overwrite --ckpt_path last",
        "--run.overwrite",
        "leave one of them out",
    ),
    bad(f"{FIT} --ckpt_path @/nowhere.ckpt", "@/nowhere.ckpt", "it may be"),
    bad(f"{FIT} --ckpt_path last", "no checkpoints/last.ckpt"),
    bad(
        "train validate --config digits_resnet --run.dir @ --run.name god",
        "@/god",
        "did you mean --run.name good",
    ),
    bad(
        "train test --config digits_resnet --ckpt_path best --run.dir @ --run.name good",
        "@/good",
        "best.ckpt",
    ),
    bad(
        f"{FIT} --ckpt_path @/run",
        "run/checkpoints/last.ckpt",
        "empty",
        make=damaged("empty", lambda data: b""),
    ),
    bad(
        f"{FIT} --ckpt_path @/run",
        "run/checkpoints/last.ckpt",
        "cut short",
        make=damaged("a half", lambda data: data[: len(data) // 2]),
    ),
    bad(
        f"{FIT} --ckpt_path @/run",
        "run/checkpoints/last.ckpt",
        "not a checkpoint",
        make=damaged("text", lambda data: b"hello"),
    ),
    bad(
        f"{FIT} --ckpt_path @/run",
        "run/checkpoints/last.ckpt",
        "not loaded",
        "state_dict",
        make=damaged("harmful", lambda data: pickled(Harmful())),
    ),
    bad(
        f"{FIT} --ckpt_path @/run", "last.ckpt", "file", make=folder_of("run/checkpoints/last.ckpt")
    ),
    bad(
        f"{FIT} --ckpt_path @/good", GOOD, "no checkpoint of train.py", "training could go on from"
    ),
    bad(
        f"{FIT} --ckpt_path @/run",
        "was trained with",
        "the network now has",
        "give the same options",
        make=checkpoint("other network", lambda content: content.update(optimizer_states=[])),
    ),
    bad("train fit --config nowhere", "nowhere", "there is no configuration", "digits_resnet"),
    bad("train fit --config @", "@", "there is no configuration"),
    bad("train fit --config data/digits", "data/digits", "--data data/digits"),
    bad(
        "train fit --config @/c.yaml",
        "c.yaml",
        "UTF-8",
        make=file("c.yaml", "name: f\xfcr".encode("latin-1")),
    ),
    bad("train fit --config @/c.yaml", "c.yaml", make=file("c.yaml", "a: [1\nb: }")),
    bad("train fit --config @/c.yaml", "c.yaml", make=file("c.yaml", "- a\n- b\n")),
    bad("train fit --config @/c.yaml", "c.yaml", make=file("c.yaml", "just words")),
    bad("train fit --config @/c.yaml", "c.yaml", make=file("c.yaml", "\0\1\2")),
    bad("train fit --config @/c.yaml", "c.yaml", make=file("c.yaml", bomb())),
    bad("train fit --config @/c.yaml", "sizes", make=file("c.yaml", "data:\n  sizes: 3\n")),
    bad(
        "train fit --config @/c.yaml",
        "c.yaml",
        "python/object",
        make=file("c.yaml", "run: !!python/object/apply:os.system ['true']\n"),
    ),
    bad("train fit --config", "--config", "expected"),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "@/i",
        "no image",
        ".png",
        make=folder_of("i", ("a.txt", "hello")),
    ),
    bad(f"{FIT} --data.name folder --data.root @/i", "@/i", "no image", make=folder_of("i")),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "@/i",
        "2 images",
        "it needs 3",
        make=folder_of("i", *PICTURES[:2]),
    ),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "x.png",
        "repair or remove it",
        make=folder_of("i", *PICTURES, ("x.png", "hello")),
    ),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "x.png",
        "repair or remove it",
        make=folder_of("i", *PICTURES, ("x.png", b"")),
    ),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "x.png",
        "repair or remove it",
        make=folder_of("i", *PICTURES, ("x.png", png(200, 200)[:90])),
    ),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "x.png",
        "repair or remove it",
        make=folder_of("i", *PICTURES, ("x.png", huge_png())),
    ),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "x.tif",
        "[0, 65535]",
        "scale them",
        make=folder_of("i", *PICTURES, ("x.tif", tiff(np.full((8, 8), -1, np.float32)))),
    ),
    bad(
        f"{FIT} --data.name folder --data.root @/i",
        "x.tif",
        "[0, 65535]",
        "scale them",
        make=folder_of("i", *PICTURES, ("x.tif", tiff(np.full((8, 8), np.nan, np.float32)))),
    ),
    bad(
        f"{FIT} --data.name folder --data.root @/i --data.conditional",
        "@/i",
        "no labels",
        "conditional",
        make=folder_of("i", *PICTURES),
    ),
    bad(
        f"{FIT} --data.name zip --data.root @/z.zip",
        "z.zip",
        "not a readable zip",
        make=file("z.zip", "hello"),
    ),
    bad(
        f"{FIT} --data.name zip --data.root @/z.zip",
        "z.zip",
        "not a readable zip",
        make=file("z.zip"),
    ),
    bad(
        f"{FIT} --data.name zip --data.root @/z.zip",
        "z.zip",
        "holds no image",
        make=lambda folder: zipfile.ZipFile(folder / "z.zip", "w").close(),
    ),
    bad(
        f"{FIT} --data.name zip --data.root @/z.zip",
        ".png",
        "encrypted",
        make=patched("z.zip", _encrypted),
    ),
    bad(
        f"{FIT} --data.name zip --data.root @/z.zip",
        ".png",
        "compression",
        make=patched("z.zip", _unknown_method),
    ),
    bad(
        f"{FIT} --data.name zip --data.root @/z.zip", ".png", "CRC", make=patched("z.zip", _bad_crc)
    ),
    *(
        bad(
            f"{FIT} --data.name zip --data.root @/z.zip",
            "z.zip",
            make=zipped("z.zip", {"dataset.json": content}),
        )
        for content in (
            b"[1, 2]",
            b'"text"',
            b"5",
            b"{",
            b"\xff\xfe",
            b'{"labels": 5}',
            b'{"labels": "cat"}',
            b'{"labels": [["0.png"]]}',
            b'{"labels": [1, 2]}',
            b'{"labels": {"0.png": 1}}',
            b"[" * 100_000,
        )
    ),
    *(
        bad(
            f"{FIT} --data.name zip --data.root @/z.zip",
            "dataset.json",
            "11.png",
            said,
            make=labelled("z.zip", all_but(label)),
        )
        for label, said in (
            (-1, "-1"),
            (1.7, "1.7"),
            ("cat", "cat"),
            (None, "None"),
            ([0, 1], "[0, 1]"),
            (10**9, "1000000000"),
            (1e30, "1e+30"),
            (float("nan"), "nan"),
            (True, "True"),
        )
    ),
    bad(
        f"{FIT} --data.name zip --data.root @/z.zip",
        "dataset.json",
        "no label",
        "11.png",
        make=labelled("z.zip", all_but(0)[:-1]),
    ),
    bad("train export --checkpoint @/nowhere --to @/out", "@/nowhere", "it may be"),
    bad("train export --checkpoint @/good --to @/good", "@/good", "another folder"),
    bad(f"train export --checkpoint @/good --to @/{GOOD}", GOOD, "another folder"),
    bad("train export --checkpoint @/good --to /proc/out", "/proc/out", "cannot be written"),
    bad("train export --checkpoint @/good", "--to", "required"),
    bad(FIT, "WANDB_MODE", "sideways", "offline", WANDB_MODE="sideways"),
    bad(FIT, "key", "wandb login", WANDB_MODE="online", WANDB_API_KEY="short"),
]

ANALYZE = [
    bad("analyze --seeds 9", "--checkpoint", "required"),
    bad("analyze --checkpoint", "--checkpoint", "expected"),
    bad("analyze figure", "figure", "did you mean figures"),
    bad("analyze @/nowhere", "@/nowhere", "it may be"),
    bad("analyze ''", "checkpoint", "train.py"),
    bad("analyze /dev/null", "/dev/null", "file"),
    bad(f"analyze /{'x' * 5000}", "xxx"),
    bad("analyze 'a\0b'", "there is no checkpoint", "it may be"),
    bad("analyze @/empty", "@/empty", "holds no checkpoint", make=folder_of("empty")),
    bad(
        "analyze @/two",
        "@/two",
        "several checkpoints",
        "name one of: a.ckpt, b.ckpt",
        make=folder_of("two", ("a.ckpt", b""), ("b.ckpt", b"")),
    ),
    bad("analyze @/x.png", "x.png", "not a checkpoint", "It may be", make=file("x.png", png())),
    bad("analyze @/x.ckpt", "x.ckpt", "empty file", "It may be", make=file("x.ckpt")),
    bad(
        "analyze @/x.ckpt",
        "x.ckpt",
        "not loaded",
        "state_dict",
        make=file("x.ckpt", pickled(Harmful())),
    ),
    bad("analyze @/x.ckpt", "x.ckpt", make=file("x.ckpt", b"\x80\x02" + b"\xff" * 100)),
    bad(
        "analyze @/x.ckpt",
        "x.ckpt",
        "cannot be read",
        "python:my_net.py:load",
        make=file("x.ckpt", pickled([1, 2, 3])),
    ),
    bad("analyze wandb:", "wandb:", "entity/project/name:alias"),
    bad("analyze wandb:a/b", "wandb:a/b", "entity/project/name:alias"),
    bad("analyze hf:nowhere", "hf:nowhere", "hf:owner/name"),
    bad("analyze hf:../..", "hf:../..", "hf:owner/name"),
    bad("analyze python:", "python:", "my_net.py:load"),
    bad("analyze python:@/n.py:load", "@/n.py", "there is no file"),
    bad("analyze python:@/n.py:laod", "laod", "it has load", make=file("n.py", "def load(): pass")),
    bad("analyze python:@/n.py", "NoneType", "els.adapters", make=file("n.py", "def load(): pass")),
    bad(
        "analyze python:@/n.py",
        "n.py",
        "ZeroDivisionError",
        make=file("n.py", "def load(): return 1 / 0"),
    ),
    bad("analyze python:@/n.py", "n.py", "SyntaxError", make=file("n.py", "def load(:")),
    bad("analyze python:no_such_module_here", "no_such_module_here", "cannot be run"),
    bad(f"{GO} --machines []", "machines", "[]", "all"),
    bad(f"{GO} --machines boundery", "boundery", "boundary"),
    bad(f"{GO} --machines ''", "machines", "all"),
    bad(f"{GO} --machines equivariant,[", "--machines"),
    bad(f"{GO} --sizes 2", "2", "odd"),
    bad(f"{GO} --sizes 0", "0", "odd"),
    bad(f"{GO} --sizes -3", "-3"),
    bad(f"{GO} --sizes 99", "patch size 99", "the largest is 15"),
    bad(f"{GO} --sizes []", "sizes", "[]"),
    bad(f"{GO} --sizes 3,x", "--sizes", "int", "x"),
    bad(f"{GO} --symmetries spin", "symmetries", "spin", "flip"),
    bad(f"{GO} --held_out -1", "held_out is -1", "at least 0"),
    bad(f"{GO} --yardsticks 0", "yardsticks is 0", "at least 1"),
    bad(f"{GO} --criterion mse", "criterion", "mse", "cosine"),
    bad(f"{GO} --seeds 0", "seeds is 0", "at least 1"),
    bad(f"{GO} --seeds many", "--seeds", "int", "many"),
    bad(f"{GO} --seeds 8", "8 of 8", "raise --seeds"),
    bad(f"{GO} --seeds 10000000000000", "seeds is 10000000000000", "at most 1,000,000"),
    bad(f"{GO} --calibration_seeds 0", "calibration_seeds is 0", "at least 1"),
    bad(f"{GO} --steps 0", "steps is 0", "at least 1"),
    bad(f"{GO} --steps 100000000", "steps is 100000000", "at most"),
    bad(f"{GO} --network_steps []", "network_steps is []", "at least 1"),
    bad(f"{GO} --network_steps 20,0", "network_steps is [20, 0]", "at least 1"),
    bad(f"{GO} --network_steps 100000000", "network_steps is [100000000]", "at most"),
    bad(f"{GO} --label 3", "label 3", "not class-conditional"),
    bad(f"{GO} --label three", "--label", "int", "three"),
    bad(f"{GO} --tolerance -1", "tolerance is -1", "at least 0"),
    bad(f"{GO} --tolerance nan", "--tolerance", "float", "nan"),
    bad(f"{GO} --tolerance inf", "--tolerance", "float", "inf"),
    bad(f"{GO} --batch 0", "batch is 0", "at least 1"),
    bad(f"{GO} --engine fortran", "engine", "fortran", "native"),
    bad(f"{GO} --engine triton", "triton", "native, torch"),
    bad(f"{GO} --chunk 0", "chunk is 0", "at least 1"),
    bad(f"{GO} --chunk -4", "chunk is -4", "at least 1"),
    bad(f"{GO} --device meta", "meta", "cpu"),
    bad(f"{GO} --device teapot", "teapot", "not available"),
    bad(f"{GO} --device cuda:99", "cuda:99", "not available"),
    bad(f"{GO} --devices 0", "devices is 0", "at least 1"),
    bad(f"{GO} --devices 1000000", "devices is 1000000", "at most"),
    bad(f"{GO} --num_nodes 2", "num_nodes is 2", "torchrun"),
    bad(f"{GO} --out @/{GOOD}", GOOD, "a folder"),
    bad(f"{GO} --out ''", "out", "folder"),
    bad(f"{GO} --out /proc/nowhere", "/proc/nowhere"),
    bad(f"{GO} --out /dev/null", "/dev/null"),
    bad(f"{GO} --out /{'x' * 300}", "xxx", "shorter"),
    bad(f"{GO} --out 'a\0b'", "a\\x00b"),
    bad(f"{GO} --name a/b", "name is 'a/b'", "letters"),
    bad(f"{GO} --name ''", "name is ''", "letters"),
    bad(f"{GO} --figures gif", "gif", "png"),
    bad(f"{GO} --figures ''", "figures", "png"),
    bad(f"{GO} --logger mlflow", "logger", "mlflow"),
    bad(f"{GO} --data_name nope", "nope", "digits", "leave it out"),
    bad(f"{GO} --padding reflect", "padding", "reflect", "zeros"),
    bad(f"{GO} --padding circular", "circular", "zeros", "leave padding out"),
    bad(f"{GO} --image_size 7", "7", "image_size", "leave image_size out"),
    bad(f"{GO} --weights raw", "weights", "raw", "ema"),
    bad(f"{GO} --prediction v", "prediction v", "eps", "leave prediction out"),
    bad(f"{GO} --schedule linear", "schedule linear", "cosine", "leave schedule out"),
    bad(f"{GO} --self_check maybe", "self_check", "maybe"),
    bad(f"{GO} --clip maybe", "--clip", "true or false", "maybe"),
    bad(f"{GO} --sead 3", "--sead", "did you mean --seeds"),
    bad(f"{GO} {GO[8:]}", "same name"),
    bad(f"{GO} --config nowhere", "nowhere", "there is no configuration", "quick"),
    bad(
        f"{GO} --config @/c.yaml",
        "c.yaml",
        "UTF-8",
        make=file("c.yaml", "name: f\xfcr".encode("latin-1")),
    ),
    bad(f"{GO} --config @/c.yaml", "c.yaml", make=file("c.yaml", "- a\n")),
    bad(f"{GO} --config @/c.yaml", "sead", make=file("c.yaml", "sead: 3\n")),
    bad(f"{GO} --config @/c.yaml", "c.yaml", make=file("c.yaml", bomb())),
    bad("analyze figures @/good", "@/good", "holds no complete analysis", "analyse it first"),
    bad("analyze figures @/nowhere", "@/nowhere", "holds no complete analysis"),
    bad("analyze figures @/done --formats gif", "gif", "png", make=finished("done", lambda _: 0)),
    bad(
        "analyze figures @/done --out @/good/checkpoints/last.ckpt",
        "last.ckpt",
        make=finished("done", lambda _: 0),
    ),
    bad(
        "analyze compare @/done", "@/done", "name at least two", make=finished("done", lambda _: 0)
    ),
    bad("analyze compare @/done @/done", "same name", make=finished("done", lambda _: 0)),
    bad("analyze list @/nowhere", "@/nowhere", "there is no folder"),
    bad(
        "analyze list @/empty", "@/empty", "holds no runs", "train.py fit", make=folder_of("empty")
    ),
    bad("analyze list @ --csv @/done", "@/done", "give a file", make=finished("done", lambda _: 0)),
    bad("analyze dashboard --out @/good", "@/good", "give a file"),
    *(
        bad(
            "analyze figures @/done",
            "@/done/analysis",
            "no complete analysis",
            make=finished(name, change),
        )
        for name, change in (
            *((f"without {name}", others_of(name)) for name in ("samples.npz",)),
            *(
                (f"{name} {content[:20]!r}", rewritten(name, content))
                for name in (
                    "agreement.json",
                    "samples.npz",
                    "scales.json",
                    "network.json",
                    "origins.npz",
                )
                for content in (b"", b"null", b"{", b"5", b"\xff\xfe\x00", b"PK\x03\x04")
            ),
        )
    ),
    *(
        bad(
            "analyze figures @/done",
            "@/done/analysis",
            "no complete analysis",
            said,
            make=finished(f"{changes}"[:60], in_json("agreement.json", **changes)),
        )
        for said, changes in (
            ("images", {"images": "many"}),
            ("protocol", {"protocol": None}),
            ("protocol", {"protocol": {"seeds": -1}}),
            ("network", {"network": 5}),
            ("checkpoint", {"checkpoint": []}),
        )
    ),
    *(
        bad(RUN, said, make=meta(**changes))
        for said, changes in (
            ("name", {"data__name": ["digits"]}),
            ("nope", {"data__name": "nope"}),
            ("root", {"data__root": 5}),
            ("root", {"data__root": None}),
            ("size", {"data__size": "wide"}),
            ("size", {"data__size": 16.5}),
            ("size", {"data__size": 10**7}),
            ("size", {"data__size": -8}),
            ("limit", {"data__limit": "a"}),
            ("limit", {"data__limit": 0}),
            ("seed", {"data__seed": "x"}),
            ("seed", {"data__seed": 2**80}),
            ("seed", {"data__seed": -1}),
            ("channels", {"data__channels": 2}),
            ("fingerprint", {"data__fingerprint": 5}),
            ("extra", {"data__extra": 1}),
            ("data", {"data": "digits"}),
            ("data", {"data": None}),
            ("image_shape", {"image_shape": [1.5, 8.0, 8.0]}),
            ("image_shape", {"image_shape": [1, 8]}),
            ("1 x -8 x 8", {"image_shape": [1, -8, 8]}),
            ("image_shape", {"image_shape": "1 x 8 x 8"}),
            ("1 x 1000000 x 1000000", {"image_shape": [1, 10**6, 10**6]}),
            ("Trained", {"trained": 5}),
            ("steps", {"trained": {"steps": "many"}}),
            ("Transformer", {"network__name": "Transformer"}),
            ("network.name", {"network__name": ["ResNet"]}),
            ("config", {"network__config": "wide"}),
            ("network", {"network": None}),
            ("depth", {"network__config__depth": 10**9}),
            ("depth", {"network__config__depth": -1}),
            ("depth", {"network__config__depth": "deep"}),
            ("width", {"network__config__width": 10**12}),
            ("width", {"network__config__width": 8 * 10**9}),
            ("width", {"network__config__width": 16.0}),
            ("channels", {"network__config__channels": -1}),
            ("kernel", {"network__config__kernel": 10**9}),
            ("padding", {"network__config__padding": "reflect"}),
            ("depht", {"network__config__depht": 3}),
            ("format is 'one'", {"format": "one"}),
        )
    ),
    *(
        bad(RUN, "run/checkpoints/last.ckpt", *said, make=make)
        for said, make in (
            (
                ("complete",),
                checkpoint("no weights", lambda content: content.pop("state_dict") and None),
            ),
            (
                ("fit its network", "missing"),
                checkpoint("no matrix", lambda content: content["state_dict"].popitem() and None),
            ),
            (
                ("fit its network", "left over"),
                checkpoint(
                    "one too many",
                    lambda content: content["state_dict"].update({"net.extra": torch.zeros(3)}),
                ),
            ),
            (("fit its network", "another shape"), weights("turned", lambda w: w[:, :3])),
            (("NaN", "earlier checkpoint"), weights("nan", lambda w: w * torch.nan)),
            (("infinite", "earlier checkpoint"), weights("inf", lambda w: w + torch.inf)),
            (("not loaded",), weights("complex", lambda w: w.to(torch.complex64))),
            (("whole numbers",), every_weight("int8", lambda w: w.to(torch.int8))),
            (("whole numbers",), every_weight("bool", lambda w: w > 0)),
            (("sparse",), weights("sparse", lambda w: w.to_sparse())),
            (("meta",), weights("meta", lambda w: w.to("meta"))),
            (
                ("not a complete checkpoint", "str"),
                checkpoint(
                    "text",
                    lambda content: content["state_dict"].update(
                        {next(iter(content["state_dict"])): "text"}
                    ),
                ),
            ),
            (
                ("not a complete checkpoint", "list"),
                checkpoint("list", lambda content: content.update(state_dict=[1])),
            ),
            (("holds",), checkpoint("another mapping", lambda content: OrderedDict(a=1))),
        )
    ),
    *(
        bad(RUN, "run/checkpoints/last.ckpt", *said, make=damaged(name, change))
        for name, said, change in (
            ("empty", ("empty file", "It may be"), lambda data: b""),
            ("one byte", ("1 bytes", "It may be"), lambda data: data[:1]),
            ("a half", ("cut short", "It may be"), lambda data: data[: len(data) // 2]),
            ("text", ("not a checkpoint", "It may be"), lambda data: b"hello"),
            (
                "one byte other",
                ("last.ckpt",),
                lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x03", 1),
            ),
            (
                "zeros in the middle",
                ("last.ckpt",),
                lambda data: data[:200] + bytes(400) + data[600:],
            ),
        )
    ),
    bad(f"{GO} --engine native", "CXX", "quot", "torch", CXX="c++ 'x", ELS_CACHE="@/cache"),
    bad(f"{GO} --engine native", "no-such-compiler", CXX="no-such-compiler", ELS_CACHE="@/cache"),
    bad(
        f"{GO} --engine native", "last.ckpt", "ELS_CACHE", ELS_CACHE="@/good/checkpoints/last.ckpt"
    ),
    bad(f"{GO} --logger wandb", "WANDB_MODE", "sideways", "offline", WANDB_MODE="sideways"),
    bad(f"{GO} --logger wandb", "key", "wandb login", WANDB_MODE="online", WANDB_API_KEY="short"),
]

TABLE = [*TRAIN, *ANALYZE]
