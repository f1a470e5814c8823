"""Networks as the paper's code defines them, written anew, to be saved whole and as an oracle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor, nn

import models


def cosine_noise_schedule(t: Tensor) -> Tensor:
    return 1 - torch.cos(t / 1.008 * torch.pi / 2) ** 2


def linear_noise_schedule(t: Tensor) -> Tensor:
    return t


class EmbeddingModule(nn.Module):
    def __init__(self, fdim: int, num_classes: int | None) -> None:
        super().__init__()
        self.fdim, self.conditional = fdim, num_classes is not None
        if num_classes is not None:
            self.class_embeddings = nn.Embedding(num_classes, fdim)

    def forward(self, t: Tensor, label: Tensor | None) -> Tensor:
        half = self.fdim // 2
        angle = t[:, None] / 10_000 ** (torch.arange(half) / (half - 1))[None]
        embedding = torch.cat([angle.sin(), angle.cos()], dim=1)
        return embedding + self.class_embeddings(label) if self.conditional else embedding


def conv(inputs: int, outputs: int, kernel: int, mode: str) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding="same", padding_mode=mode)


class MinimalResNet(nn.Module):
    def __init__(
        self,
        channels: int,
        emb_dim: int,
        mode: str,
        num_classes: int | None,
        num_layers: int,
        kernel_size: int,
        lastksize: int,
        normalization: str | None = None,
        add_one: bool = True,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.embedding = EmbeddingModule(emb_dim, num_classes)
        self.up_projection = conv(channels, emb_dim, kernel_size, mode)
        self.embs = nn.ModuleList(
            nn.Sequential(nn.Linear(emb_dim, emb_dim), nn.GroupNorm(8, emb_dim), nn.ReLU())
            for _ in range(num_layers + add_one)
        )
        self.convs = nn.ModuleList(
            nn.Sequential(
                conv(emb_dim, emb_dim, kernel_size, mode),
                *([nn.GroupNorm(8, emb_dim)] if normalization else []),
                nn.ReLU(),
            )
            for _ in range(num_layers)
        )
        self.down_projection = conv(emb_dim, channels, lastksize, mode)
        if normalization:
            self.down_projection = nn.Sequential(nn.GroupNorm(8, emb_dim), self.down_projection)

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None) -> Tensor:
        embedding, state = self.embedding(t, label), self.up_projection(x)
        for i in range(self.num_layers):
            state = state + self.convs[i](state + self.embs[i](embedding)[:, :, None, None])
        delta = state
        if len(self.embs) > self.num_layers:
            delta = self.embs[-1](embedding)[:, :, None, None]
        return self.down_projection(state + delta)


def norms(normalization: str | None, width: int) -> list[nn.Module]:
    if normalization == "GroupNorm":
        return [nn.GroupNorm(min(32, width), width)]
    return [nn.BatchNorm2d(width)] if normalization == "BatchNorm" else []


class UBlock(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        mode: str,
        emb_dim: int,
        normalization: str | None = None,
    ) -> None:
        super().__init__()
        self.emb = nn.Sequential(nn.ReLU(), nn.Linear(emb_dim, inputs))
        self.model = nn.Sequential(
            conv(inputs, outputs, kernel, mode),
            *norms(normalization, outputs),
            nn.ReLU(),
            conv(outputs, outputs, kernel, mode),
            *norms(normalization, outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.model(x + self.emb(embedding)[:, :, None, None])


class MinimalUNet(nn.Module):
    def __init__(
        self,
        channels: int,
        fsizes: list[int],
        mode: str,
        num_classes: int | None,
        emb_dim: int,
        kernel_size: int,
        lastksize: int,
        normalization: str | None = None,
        last_norm: bool = False,
    ) -> None:
        super().__init__()
        self.fsizes, block = fsizes, (kernel_size, mode, emb_dim, normalization)
        self.embedding = EmbeddingModule(emb_dim, num_classes)
        down = pairwise([channels, *fsizes[:-1]])
        self.feature_blocks = nn.ModuleList(UBlock(a, b, *block) for a, b in down)
        self.bottleneck = UBlock(*fsizes[-2:], *block)
        up = list(pairwise(fsizes[::-1]))
        self.upsamples = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in up)
        # Of size 3, whatever the others are.
        self.output_blocks = nn.ModuleList(UBlock(2 * b, b, 3, *block[1:]) for _, b in up)
        self.last_emb = nn.Sequential(nn.ReLU(), nn.Linear(emb_dim, fsizes[0]))
        self.output_conv = conv(fsizes[0], channels, lastksize, mode)
        self.pool = nn.MaxPool2d(2)
        self.last_norm = last_norm
        if last_norm and normalization:
            self.last_normalizer = norms(normalization, fsizes[0])[0]

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None) -> Tensor:
        embedding, skips = self.embedding(t, label), []
        for block in self.feature_blocks:
            x = block(x, embedding)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x, embedding)
        for upsample, block in zip(self.upsamples, self.output_blocks, strict=True):
            x = block(torch.cat([skips.pop(), upsample(x)], dim=1), embedding)
        x = x + self.last_emb(embedding)[:, :, None, None]
        return self.output_conv(self.last_normalizer(x) if hasattr(self, "last_normalizer") else x)


class DDIM(nn.Module):
    def __init__(self, backbone: nn.Module, noise_schedule=cosine_noise_schedule) -> None:
        super().__init__()
        self.default_imsize = 12
        self.noise_schedule = noise_schedule
        self.backbone = backbone

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.backbone(t, x, label)


CLASSES = (DDIM, MinimalResNet, MinimalUNet, UBlock, EmbeddingModule)
SCHEDULES = (cosine_noise_schedule, linear_noise_schedule)


@contextmanager
def _as_in_the_papers_repository() -> Iterator[None]:
    """Let pickle find these classes as `models.*` and the schedules as `utils.idealscore.*`."""
    utils = {name: ModuleType(name) for name in ("utils", "utils.idealscore")}
    for function in SCHEDULES:
        function.__module__ = "utils.idealscore"
        setattr(utils["utils.idealscore"], function.__name__, function)
    for kind in CLASSES:
        kind.__module__ = "models"
    names = {kind.__name__: kind for kind in CLASSES}
    with patch.multiple(models, create=True, **names), patch.dict(sys.modules, utils):
        yield


def save_whole(module: nn.Module, path: Path, **options: object) -> Path:
    """Save a module as the paper's code does."""
    with _as_in_the_papers_repository():
        torch.save(module, path, **options)
    return path


def resnet(
    *, mode: str = "zeros", num_classes: int | None = None, seed: int = 0, **flags: object
) -> DDIM:
    torch.manual_seed(seed)
    return DDIM(MinimalResNet(3, 16, mode, num_classes, 3, 5, 1, **flags)).eval()


def unet(
    *,
    mode: str = "zeros",
    num_classes: int | None = None,
    seed: int = 0,
    kernel_size: int = 3,
    **flags: object,
) -> DDIM:
    torch.manual_seed(seed)
    return DDIM(MinimalUNet(1, [16, 24, 32], mode, num_classes, 12, kernel_size, 1, **flags)).eval()
