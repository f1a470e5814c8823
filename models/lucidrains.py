"""The Unet of lucidrains' denoising-diffusion-pytorch, as its files name and number its weights.

Each level has two residual blocks, then attention: over all places (full), or linear in their
number (Shen et al. 2018). Attention also sees a few learned places ("memory").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from els.errors import InputError
from els.models.blocks import NetworkFacts, as_map
from els.models.steps import StepNetwork
from els.schedule import CosineSchedule


@dataclass(frozen=True)
class Level:
    """One level of the Unet.

    Attributes:
        inputs: channels of its blocks on the way down.
        outputs: channels that it hands on, and of its blocks on the way up.
        heads: of its attention.
        head: channels of each head.
        memory: learned places that attention sees beside the image's.
        full: attention over all places; else linear in their number.
    """

    inputs: int
    outputs: int
    heads: int
    head: int
    memory: int
    full: bool


class RMSNorm(nn.Module):
    """Each place divided by the root mean square of its channels, and scaled channel by channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        """Features (b d h w) from features (b d h w)."""
        return F.normalize(h, dim=1) * self.g * math.sqrt(h.shape[1])


class ConvNorm(nn.Module):
    """A convolution, its norm, what the time says of it, and SiLU."""

    def __init__(self, inputs: int, outputs: int, *, groups: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(groups, outputs) if groups else RMSNorm(outputs)

    def forward(self, h: Tensor, told: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Features (b outputs h w), scaled and shifted by two (b outputs 1 1) if they are given."""
        h = self.norm(self.proj(h))
        if told is not None:
            scale, shift = told
            h = h * (1 + scale) + shift
        return F.silu(h)


class Block(nn.Module):
    """Two convolutions, of which the first is told the time, and their input added."""

    def __init__(self, inputs: int, outputs: int, time: int, groups: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outputs))
        self.block1 = ConvNorm(inputs, outputs, groups=groups)
        self.block2 = ConvNorm(outputs, outputs, groups=groups)
        self.res_conv = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """Features (b outputs h w) from features (b inputs h w) and the time's (b d)."""
        scale, shift = as_map(self.mlp(time)).chunk(2, dim=1)
        return self.block2(self.block1(h, (scale, shift))) + self.res_conv(h)


class Attention(nn.Module):
    """Every place looks at every other, or linearly at a summary of all; what it sees is added."""

    def __init__(self, width: int, level: Level) -> None:
        super().__init__()
        self.heads, self.full = level.heads, level.full
        inner = level.heads * level.head
        places = (level.memory, level.head) if level.full else (level.head, level.memory)
        self.norm = RMSNorm(width)
        self.mem_kv = nn.Parameter(torch.randn(2, level.heads, *places))
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        out = nn.Conv2d(inner, width, 1)
        self.to_out = out if level.full else nn.Sequential(out, RMSNorm(width))

    def forward(self, h: Tensor) -> Tensor:
        """Features (b d h w) from features (b d h w)."""
        query, key, value = rearrange(
            self.to_qkv(self.norm(h)),
            "b (three n d) y x -> three b n (y x) d",
            three=3,
            n=self.heads,
        )
        memory = self.mem_kv if self.full else self.mem_kv.transpose(2, 3)
        more = memory[:, None].expand(-1, len(h), -1, -1, -1)
        key, value = torch.cat([more[0], key], dim=2), torch.cat([more[1], value], dim=2)
        if self.full:
            seen = F.scaled_dot_product_attention(query, key, value)
        else:
            query = query.softmax(dim=3) / math.sqrt(query.shape[3])
            seen = query @ (key.softmax(dim=2).transpose(2, 3) @ value)
        return h + self.to_out(rearrange(seen, "b n (y x) d -> b (n d) y x", y=h.shape[2]))


class Halving(nn.Module):
    """The four pixels of a cell become channels of one."""

    def forward(self, h: Tensor) -> Tensor:
        """Features (b 4d h/2 w/2) from features (b d h w)."""
        return rearrange(h, "b c (h p) (w q) -> b (c p q) h w", p=2, q=2)


class StepSinusoids(nn.Module):
    """sin and cos of the step at frequencies that fall geometrically from 1 to 1e-4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.half_width = width // 2

    def forward(self, steps: Tensor) -> Tensor:
        """Features (b d) of steps (b,)."""
        places = torch.arange(self.half_width, device=steps.device)
        angles = steps[:, None] * torch.exp(places * (-math.log(10_000) / (self.half_width - 1)))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class DrawnSinusoids(nn.Module):
    """The step, and sin and cos of it at frequencies of its own."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(count))

    def forward(self, steps: Tensor) -> Tensor:
        """Features (b 1+2d) of steps (b,)."""
        angles = 2 * math.pi * torch.outer(steps, self.weights)
        return torch.cat([steps[:, None], angles.sin(), angles.cos()], dim=1)


class Unet(nn.Module):
    """The network, called as unet(x, steps).

    Args:
        inputs: channels of its input: the image's, or twice as many where it is also given an
            estimate of the clean image ("self-condition"), which is zero here.
        outputs: channels of its answer.
        first: channels after the first convolution.
        time: features of the time after and before its first layer.
        levels: the levels, finest first.
        middle: the attention at the bottom.
        drawn: frequencies of its own for the time, (d,); None: the usual.
        groups: of channels that the blocks' norms are over, as before version 2.0; 0: each place is
            divided by its root mean square.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        first: int,
        time: tuple[int, ...],
        levels: Sequence[Level],
        middle: Level,
        drawn: Tensor | None = None,
        groups: int = 0,
    ) -> None:
        super().__init__()
        after, before = time
        block = partial(Block, time=after, groups=groups)
        if drawn is None and (before < 4 or before % 2):
            raise InputError(f"its time has {before} features; it needs an even number from 4")
        self.inputs, self.outputs = inputs, outputs
        self.init_conv = nn.Conv2d(inputs, first, 7, padding=3)
        features = StepSinusoids(before) if drawn is None else DrawnSinusoids(len(drawn))
        self.time_mlp = nn.Sequential(
            features, nn.Linear(before, after), nn.GELU(), nn.Linear(after, after)
        )
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in levels:
            wide, last = level.inputs, level is levels[-1]
            self.downs.append(
                nn.ModuleList(
                    [
                        block(wide, wide),
                        block(wide, wide),
                        Attention(wide, level),
                        nn.Conv2d(wide, level.outputs, 3, padding=1)
                        if last
                        else nn.Sequential(Halving(), nn.Conv2d(4 * wide, level.outputs, 1)),
                    ]
                )
            )
        bottom = levels[-1].outputs
        self.mid_block1 = block(bottom, bottom)
        self.mid_attn = Attention(bottom, middle)
        self.mid_block2 = block(bottom, bottom)
        for level in reversed(levels):
            wide, narrow = level.outputs, level.inputs
            conv = nn.Conv2d(wide, narrow, 3, padding=1)
            self.ups.append(
                nn.ModuleList(
                    [
                        block(wide + narrow, wide),
                        block(wide + narrow, wide),
                        Attention(wide, level),
                        conv
                        if level is levels[0]
                        else nn.Sequential(nn.Upsample(scale_factor=2), conv),
                    ]
                )
            )
        self.final_res_block = block(2 * first, first)
        self.final_conv = nn.Conv2d(first, outputs, 1)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Answers (b outputs h w) to images x (b inputs h w) at steps (b,)."""
        h = first = self.init_conv(x)
        time, skips = self.time_mlp(steps), []
        for parts in self.downs:
            block1, block2, attention, smaller = cast(nn.ModuleList, parts)
            h = block1(h, time)
            skips.append(h)
            h = attention(block2(h, time))
            skips.append(h)
            h = smaller(h)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, time)), time)
        for parts in self.ups:
            block1, block2, attention, larger = cast(nn.ModuleList, parts)
            h = block1(torch.cat([h, skips.pop()], dim=1), time)
            h = attention(block2(torch.cat([h, skips.pop()], dim=1), time))
            h = larger(h)
        return self.final_conv(self.final_res_block(torch.cat([h, first], dim=1), time))


class LucidrainsNetwork(StepNetwork):
    """A Unet of denoising-diffusion-pytorch as net(x, t, label) -> eps_hat at our continuous t.

    Args:
        unet: the network.
        alphas_cumprod: alpha^2 of its steps (n,), falling.
        prediction: what it predicts, see `StepNetwork`.
        schedule: what our t means.

    Raises:
        InputError: when its channels are not those of a denoiser.
    """

    def __init__(
        self,
        unet: Unet,
        *,
        alphas_cumprod: Tensor,
        prediction: str,
        schedule: CosineSchedule | None = None,
    ) -> None:
        channels = min(unet.inputs, unet.outputs)
        if {unet.inputs, unet.outputs} - {channels, 2 * channels}:
            raise InputError(
                f"its Unet maps {unet.inputs} channels to {unet.outputs}; it must be "
                "as many, or one of them twice the other"
            )
        super().__init__(
            channels,
            None,
            "none",
            alphas_cumprod=alphas_cumprod,
            prediction=prediction,
            schedule=schedule,
        )
        self.unet = unet

    def answer(self, x: Tensor, steps: Tensor, label: Tensor | None) -> Tensor:
        """See `StepNetwork.answer`; estimates of the clean image that it could be given are 0."""
        if self.unet.inputs > self.channels:
            x = torch.cat([torch.zeros_like(x), x], dim=1)
        # A network that predicts its variance too has it in the channels after the image's.
        return self.unet(x, steps)[:, : self.channels]

    @property
    def cell(self) -> int:
        """See `Network.cell`."""
        return 2 ** (len(self.unet.downs) - 1)

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        details = f"{self.prediction} over {len(self.times)} steps"
        return replace(super().facts, name="Unet of lucidrains", details=details)

    @property
    def receptive_field(self) -> None:
        """See `Network.receptive_field`: attention sees the whole image."""
        return None


SCHEDULES = ("linear", "cosine", "sigmoid")


def lucidrains_betas(schedule: str, n: int) -> Tensor:
    """The betas (n,) of GaussianDiffusion with its usual numbers.

    Args:
        schedule: one of `SCHEDULES`; "sigmoid" is of Jabri et al. 2022.
        n: steps.
    """
    if schedule == "linear":
        return torch.linspace(1e-4, 0.02, n, dtype=torch.float64) * 1000 / n
    t = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    if schedule == "cosine":
        level = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    else:
        first, last = torch.tensor([-3.0, 3.0], dtype=torch.float64).sigmoid()
        level = (last - (6 * t - 3).sigmoid()) / (last - first)
    return (1 - level[1:] / level[:-1]).clamp(0, 0.999)
