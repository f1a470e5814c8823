"""A trained network in forms that others read: safetensors, a program of PyTorch, a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from els.console import Parser, console
from els.errors import InputError, reason
from els.files import replacing_folder, sha256_of
from els.images import to_uint8
from els.models.blocks import Network
from els.models.checkpoints import find_checkpoint, load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.models.formats import exported, own
from els.models.networks import NETWORKS
from els.reading import member, read_table
from els.schedule import CosineSchedule

PROGRAM, PICTURE, CARD = "denoiser.pt2", "samples.png", "README.md"
_SAMPLES, _STEPS = 8, 50
# What is known of the licences of data sets; weights are made from these images.
LICENCES = {
    "digits": "Optical digits of the UCI repository (Alpaydin & Kaynak 1998), CC BY 4.0.",
    "garments": "From FashionMNIST (Xiao et al. 2017), MIT licence.",
    "fashion_mnist": "FashionMNIST (Xiao et al. 2017), MIT licence.",
    "mnist": "MNIST (LeCun et al. 1998), CC BY-SA 3.0.",
    "cifar10": "CIFAR-10 (Krizhevsky 2009), which names no licence; for research.",
    "celeba": "CelebA (Liu et al. 2015), for research that is not commercial.",
}
_OWN_IMAGES = "Images of a user's own, under the licence that these have."


def main(args: Sequence[str]) -> Path:
    """The command `train.py export`; returns the folder."""
    parser = Parser(prog="train.py export", description="Write a trained network for others.")
    parser.add_argument("--checkpoint", type=str, required=True, help="a run's folder, or a .ckpt")
    parser.add_argument("--to", type=str, required=True, help="a new folder")
    parser.add_argument(
        "--analysis", type=str, help="the folder of an analysis that lies elsewhere"
    )
    args = ["--help" if arg == "--help_all" else arg for arg in args]
    options = parser.parse_args(args)
    folder = export(options.checkpoint, options.to, analysis=options.analysis)
    console.print(f"written to {folder}: {', '.join(sorted(one.name for one in folder.iterdir()))}")
    return folder


def export(checkpoint: str | Path, to: str | Path, *, analysis: str | Path | None = None) -> Path:
    """Write a network that was trained here to a new folder, whole or not at all.

    Args:
        checkpoint: what `els.models.checkpoints.find_checkpoint` takes.
        to: the folder, which is not there or empty.
        analysis: the folder of an analysis of these weights, whose agreement goes into the model
            card; default: the first in the run's folder.

    Returns:
        the folder: `model.safetensors` and `config.json`, which `load_denoiser` reads back; a
        program of torch.export, denoiser.pt2; a model card, README.md, with a picture.

    Raises:
        InputError: when the folder holds something, the network was not trained here, or the
            analysis is not of it.
    """
    to = Path(to).resolve()
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise InputError(f"'{to}' is there already and holds something; give --to another folder")
    denoiser = load_denoiser(checkpoint)
    if type(denoiser.net) is not NETWORKS.get(type(denoiser.net).__name__) or not denoiser.data:
        raise InputError(
            f"'{checkpoint}' is a network of {denoiser.facts.name} that was not trained here, and "
            "has its own form; export is for checkpoints of train.py"
        )
    source = find_checkpoint(checkpoint)
    weights = denoiser.declared.weights if denoiser.declared else None
    agreement = _agreement(source, weights, analysis)
    try:
        with replacing_folder(to) as partial:
            _write(denoiser, agreement, partial, to.name)
            if to.exists():
                to.rmdir()
    except OSError as error:
        raise InputError(f"'{to}' cannot be written: {reason(error)}") from error
    return to


def _write(denoiser: NetworkDenoiser, agreement: Sequence[str], folder: Path, name: str) -> None:
    assert denoiser.data is not None
    # The place of the images on this machine is nobody else's.
    data = replace(denoiser.data, root="data")
    meta = own.describe(
        denoiser.net,
        image_shape=denoiser.image_shape,
        data=asdict(data),
        trained=denoiser.trained,
    )
    exported.write(folder, denoiser.net, meta)
    torch.export.save(program(denoiser), folder / PROGRAM)
    _picture(denoiser).save(folder / PICTURE)
    text = card(denoiser, name, agreement, _use(denoiser, name))
    (folder / CARD).write_text(text, encoding="utf-8")


class _Denoising(nn.Module):
    """x0_hat(x, t, label) as one module, without checks."""

    def __init__(self, net: Network, schedule: CosineSchedule) -> None:
        super().__init__()
        self.net, self.schedule = net, schedule

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x0_hat (b c h w) of x (b c h w) at t (b,)."""
        # As x0_from_eps, whose checks would tie the program to one number of images.
        alpha, sigma = (
            rearrange(of(t.double()), "b -> b 1 1 1").to(x)
            for of in (self.schedule.alpha, self.schedule.sigma)
        )
        return (x - sigma * self.net(x, t, label)) / alpha


def program(denoiser: NetworkDenoiser) -> torch.export.ExportedProgram:
    """The denoiser as a program that needs torch alone, for any number of images.

    It is called as `program.module()(x, t)`, or `(x, t, label)` where there are classes: x (b c h
    w) and t (b,) float32, label (b,) int64.
    """
    x, t = torch.zeros(2, *denoiser.image_shape), torch.full((2,), 0.5)
    given = (x, t) if denoiser.num_classes is None else (x, t, torch.zeros(2).long())
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in given)
    names = ("x", "t", "label")
    module = _Denoising(denoiser.net, denoiser.schedule).eval()
    return torch.export.export(
        module, given, dynamic_shapes=dict(zip(names, shapes, strict=False)), strict=False
    )


def _picture(denoiser: NetworkDenoiser) -> Image.Image:
    """Samples side by side."""
    x = to_uint8(denoiser.sample(_SAMPLES, steps=_STEPS))
    row = rearrange(x, "n c h w -> h (n w) c").numpy()
    return Image.fromarray(row[..., 0] if row.shape[2] == 1 else row)


def _agreement(checkpoint: Path, weights: str | None, analysis: str | Path | None) -> list[str]:
    """A row for each machine that an analysis of these weights compared them with.

    Args:
        checkpoint: the file.
        weights: which of its weights.
        analysis: the folder of the analysis; None: the first beside the checkpoint or in its run.

    Raises:
        InputError: when the folder that is given holds no analysis of these weights.
    """
    digest = sha256_of(checkpoint)
    near = (checkpoint.parent.parent, checkpoint.parent)
    folders = [one for folder in near for one in sorted(folder.glob("analysis*"))]
    for folder in folders if analysis is None else [Path(analysis)]:
        try:
            content = read_table(member(folder, "agreement.json"))
            declared = content.get("declared") or {}
            same = declared.get("weights") in (None, weights)
            if content["checkpoint"]["sha256"] == digest and same:
                return [
                    f"| `{kind}` | {one['pearson_r']['median']:.3f} | {one['R2']['median']:.3f} |"
                    for kind, one in content["machines"].items()
                ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    if analysis is not None:
        raise InputError(
            f"'{analysis}' holds no finished analysis of the weights in '{checkpoint}'"
        )
    return []


def card(
    denoiser: NetworkDenoiser,
    name: str,
    agreement: Sequence[str],
    use: str,
    images: str | None = None,
) -> str:
    """The model card.

    Args:
        denoiser: the network.
        name: of the folder.
        agreement: rows of a table: a machine, its pearson_r, its R2; none where it is not known.
        use: what it says of that, in Markdown.
        images: where they are from and under which licence; default: what the data set's name says.
    """
    data, trained = denoiser.data, denoiser.trained
    assert data is not None
    told, few = "not known", "" if data.limit is None else f", {data.limit:,} images"
    if trained is not None:
        told = f"{trained.steps:,} steps, {trained.epochs:,} epochs"
        if trained.val_loss is not None:
            told += f", loss on held-out images {trained.val_loss:.4f}"
    table = ["| machine | pearson_r | R2 |", "|---|---|---|", *agreement]
    shape = " x ".join(map(str, denoiser.image_shape))
    licence = images or LICENCES.get(data.name, _OWN_IMAGES)
    return f"""# {name}

A diffusion model of images of {shape} pixels: {denoiser.facts.description}.

![samples]({PICTURE})

**Data.** `{data.name}`{few}, values in [-1, 1]. {licence}

**Training.** {told}; it predicts the noise, over the cosine schedule.

**Agreement** with closed-form machines, medians over seeds:

{chr(10).join(table) if agreement else "not measured yet: `python analyze.py FOLDER`."}

## Use

{use}
"""


def _use(denoiser: NetworkDenoiser, name: str) -> str:
    """How a folder of `export` is used."""
    label = "" if denoiser.num_classes is None else ", label"
    classes = "" if denoiser.num_classes is None else "label = torch.zeros(4).long()\n"
    return f"""With torch alone, any number of images at times t in (0, 1]:

```python
import torch

denoise = torch.export.load("{PROGRAM}").module()
x, t = torch.randn(4, {", ".join(map(str, denoiser.image_shape))}), torch.full((4,), 0.9)
{classes}x0_hat = denoise(x, t{label})
```

With the project `els`, which also samples and analyses it:

```python
import els

samples = els.load_denoiser("path/to/{name}").sample(4)
```"""
