"""The two UNets of EDM (Karras et al. 2022), as files of its code name and number their weights.

SongUNet is DDPM++ and NCSN++ (Song et al. 2021), DhariwalUNet is ADM (Dhariwal & Nichol 2021). Both
are called as unet(x, c_noise, labels) with x (b c h w) and the noise level's conditioning (b,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from els.errors import InputError
from els.models.blocks import as_map, check_choice

EMBEDDINGS = ("positional", "fourier")
ENCODERS = ("standard", "skip", "residual")
DECODERS = ("standard", "skip")


class Resampled(nn.Module):
    """A convolution after or before a halving or doubling of the image by a fixed filter.

    Args:
        inputs: channels of its input.
        outputs: channels of its output.
        kernel: odd size of the convolution; 0 resamples alone.
        resample: "up", "down" or "", which leaves the size as it is.
        taps: the filter along one axis, such as [1, 1] or [1, 3, 3, 1].
        fused: convolve before the filter, of which only what is kept is computed.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        resample: str = "",
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernel = inputs, outputs, kernel
        self.resample, self.fused = resample, fused
        self.weight = self.bias = None
        if kernel:
            self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
            self.bias = nn.Parameter(torch.zeros(outputs))
            nn.init.kaiming_normal_(self.weight)
        if resample:
            line = torch.tensor(taps, dtype=torch.float32)
            square = torch.outer(line, line)[None, None] / line.sum() ** 2
            self.register_buffer("resample_filter", square)

    def forward(self, x: Tensor) -> Tensor:
        """Features (b outputs h' w') from features (b inputs h w)."""
        if self.fused:
            return self._fused(x)
        if self.resample:
            x = self._filtered(x, padding=(self.resample_filter.shape[-1] - 1) // 2)
        if self.weight is None:
            return x
        return F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2)

    def _fused(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        assert self.bias is not None
        reach = (self.resample_filter.shape[-1] - 1) // 2
        x = F.conv2d(x, self.weight, padding=self.kernel // 2 + reach)
        return self._filtered(x, padding=0) + as_map(self.bias[None])

    def _filtered(self, x: Tensor, *, padding: int) -> Tensor:
        """Every second pixel of the filtered image, or twice as many pixels."""
        channels = x.shape[1]
        taps = self.resample_filter.to(x).expand(channels, -1, -1, -1)
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * taps, stride=2, padding=padding, groups=channels)
        return F.conv2d(x, taps, stride=2, padding=padding, groups=channels)


@dataclass(frozen=True)
class Style:
    """What all blocks of one UNet have in common.

    Attributes:
        taps: of the filter that resamples.
        eps: of the group norms.
        scales: the embedding scales and shifts what is normalised; else it is added before.
        projects: the skip of a block that resamples has a 1 x 1 convolution in every case.
        after_sum: what every sum of a branch and its input is multiplied by.
        head_width: channels of an attention head; None is a single head.
    """

    taps: tuple[float, ...] = (1, 1)
    eps: float = 1e-5
    scales: bool = True
    projects: bool = False
    after_sum: float = 1.0
    head_width: int | None = None

    def heads(self, width: int) -> int:
        """The heads of an attention over `width` channels."""
        return 1 if self.head_width is None else width // self.head_width


def capped_group_norm(width: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Normalisation over 32 groups of channels, or as many as leave four in each."""
    return nn.GroupNorm(min(32, width // 4), width, eps)


class Block(nn.Module):
    """Two convolutions with the embedding between them, their input added, then self-attention.

    Args:
        inputs: channels of its input.
        outputs: channels of its output.
        embedding: features of the embedding.
        style: what all blocks of one UNet have in common.
        resample: "up", "down" or "".
        heads: attention heads; 0 is no attention.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        style: Style,
        resample: str = "",
        heads: int = 0,
    ) -> None:
        super().__init__()
        self.outputs, self.heads, self.style = outputs, heads, style
        self.norm0 = capped_group_norm(inputs, style.eps)
        self.conv0 = Resampled(inputs, outputs, 3, resample=resample, taps=style.taps)
        self.affine = nn.Linear(embedding, outputs * (1 + style.scales))
        self.norm1 = capped_group_norm(outputs, style.eps)
        self.conv1 = Resampled(outputs, outputs, 3)
        self.skip: Resampled | None = None
        if outputs != inputs or resample:
            kernel = int(style.projects or outputs != inputs)
            self.skip = Resampled(inputs, outputs, kernel, resample=resample, taps=style.taps)
        if heads:
            self.norm2 = capped_group_norm(outputs, style.eps)
            self.qkv = Resampled(outputs, 3 * outputs, 1)
            self.proj = Resampled(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features (b outputs h' w') from features (b inputs h w) and the embedding (b d)."""
        h = self.conv0(F.silu(self.norm0(x)))
        told = as_map(self.affine(embedding))
        if self.style.scales:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + told)
        h = self.conv1(F.silu(h)) + (x if self.skip is None else self.skip(x))
        h = h * self.style.after_sum
        return self._attended(h) * self.style.after_sum if self.heads else h

    def _attended(self, h: Tensor) -> Tensor:
        query, key, value = rearrange(
            self.qkv(self.norm2(h)),
            "b (n d three) y x -> three b n (y x) d",
            three=3,
            n=self.heads,
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        return h + self.proj(rearrange(seen, "b n (y x) d -> b (n d) y x", y=h.shape[2]))


class Sinusoids(nn.Module):
    """cos and sin of c_noise at frequencies that fall geometrically from 1 to 1e-4.

    Args:
        width: number of features, even.
        endpoint: the last frequency is 1e-4 itself, and not one step above it.
    """

    def __init__(self, width: int, *, endpoint: bool) -> None:
        super().__init__()
        self.count, self.endpoint = width // 2, endpoint

    def forward(self, c_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Two halves (b width/2) of the features of c_noise (b,)."""
        places = torch.arange(self.count, device=c_noise.device, dtype=c_noise.dtype)
        angles = torch.outer(c_noise, (1 / 10_000) ** (places / (self.count - self.endpoint)))
        return angles.cos(), angles.sin()


class RandomSinusoids(nn.Module):
    """cos and sin of c_noise at frequencies that were drawn at random before training.

    Args:
        width: number of features, even.
    """

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(width // 2))

    def forward(self, c_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Two halves (b width/2) of the features of c_noise (b,)."""
        angles = torch.outer(c_noise, 2 * math.pi * self.freqs.to(c_noise))
        return angles.cos(), angles.sin()


class _UNet(nn.Module):
    """The frame of both: levels of blocks down and up, joined by concatenated skips."""

    def __init__(
        self,
        *,
        size: int,
        widths: Sequence[int],
        num_blocks: int,
        attention: Sequence[int],
        embedding: int,
        style: Style,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 4 or num_blocks < 1:
            raise InputError(
                f"its levels have {list(widths)} channels and {num_blocks} blocks; "
                "there must be levels of at least 4 channels and one block"
            )
        if size < 1 or size % 2 ** (len(widths) - 1):
            raise InputError(
                f"its images of {size} pixels cannot be halved {len(widths) - 1} times"
            )
        self.size, self.widths, self.num_blocks = size, tuple(widths), num_blocks
        self.attention, self.embedding, self.style = tuple(attention), embedding, style
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()

    def at(self, level: int, part: str) -> str:
        """The name of a part of a level, such as "16x16_down"."""
        return f"{self.size >> level}x{self.size >> level}_{part}"

    def attends(self, level: int) -> bool:
        """Whether the blocks of a level end in attention."""
        return self.size >> level in self.attention

    def block(
        self, inputs: int, outputs: int, *, attends: bool = False, resample: str = ""
    ) -> Block:
        """One block in the style of this UNet."""
        heads = self.style.heads(outputs) if attends else 0
        return Block(
            inputs, outputs, self.embedding, style=self.style, resample=resample, heads=heads
        )

    def add_encoder(self, channels: int, first: int) -> None:
        """The way down, from images of `channels` by a convolution to `first` channels."""
        width = first
        for level, wide in enumerate(self.widths):
            if level == 0:
                self.enc[self.at(level, "conv")] = Resampled(channels, first, 3)
            else:
                self.enc[self.at(level, "down")] = self.block(width, width, resample="down")
                self.add_beside(level, width)
            for index in range(self.num_blocks):
                block = self.block(width, wide, attends=self.attends(level))
                self.enc[self.at(level, f"block{index}")] = block
                width = wide

    def add_decoder(self) -> None:
        """The way up, whose blocks take the outputs of the way down in reverse."""
        skips: list[int] = [
            part.outputs  # type: ignore[misc]
            for name, part in self.enc.items()
            if "_aux_" not in name
        ]
        width = self.widths[-1]
        for level, wide in reversed(list(enumerate(self.widths))):
            if level == len(self.widths) - 1:
                self.dec[self.at(level, "in0")] = self.block(width, width, attends=True)
                self.dec[self.at(level, "in1")] = self.block(width, width)
            else:
                self.dec[self.at(level, "up")] = self.block(width, width, resample="up")
            for index in range(self.num_blocks + 1):
                attends = self.attends(level) and self.attends_going_up(index)
                block = self.block(width + skips.pop(), wide, attends=attends)
                self.dec[self.at(level, f"block{index}")] = block
                width = wide
            self.add_answer(level, wide)

    def add_beside(self, level: int, width: int) -> None:
        """What goes down beside the blocks, if anything does."""

    def add_answer(self, level: int, width: int) -> None:
        """What answers after the last block of a level on the way up, if anything does."""

    def attends_going_up(self, index: int) -> bool:
        """Whether the block of that number may attend on the way up."""
        return True


class SongUNet(_UNet):
    """DDPM++ (positional, standard, [1, 1]) and NCSN++ (fourier, residual, [1, 3, 3, 1]).

    Args:
        img_resolution: height and width of the images.
        in_channels: channels of the images.
        out_channels: channels of the answer.
        label_dim: classes; 0 is unconditional.
        augment_dim: features of what augmentation did, which are zero here; 0 where there are none.
        model_channels: what the channels of all levels are multiples of.
        channel_mult: the channels of each level, finest first, as multiples.
        channel_mult_emb: features of the embedding, as a multiple.
        num_blocks: blocks of each level.
        attn_resolutions: heights of the levels with attention.
        embedding_type: of the noise level, one of `EMBEDDINGS`.
        channel_mult_noise: features of the noise level, as a multiple.
        encoder_type: one of `ENCODERS`: what the smaller image, too, is given to.
        decoder_type: one of `DECODERS`: whether every level answers, and the answers are added.
        resample_filter: along one axis.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        embedding, noise = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        super().__init__(
            size=img_resolution,
            widths=[model_channels * multiple for multiple in channel_mult],
            num_blocks=num_blocks,
            attention=attn_resolutions,
            embedding=embedding,
            style=Style(
                taps=tuple(resample_filter),
                eps=1e-6,
                scales=False,
                projects=True,
                after_sum=math.sqrt(0.5),
            ),
        )
        check_choice("embedding_type", embedding_type, EMBEDDINGS)
        check_choice("encoder_type", encoder_type, ENCODERS)
        check_choice("decoder_type", decoder_type, DECODERS)
        self.channels, self.out_channels = in_channels, out_channels
        self.encoder_type, self.decoder_type = encoder_type, decoder_type
        self.map_noise: nn.Module = (
            Sinusoids(noise, endpoint=True)
            if embedding_type == "positional"
            else RandomSinusoids(noise)
        )
        self.map_label = nn.Linear(label_dim, noise) if label_dim else None
        self.map_augment = nn.Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.add_encoder(in_channels, model_channels)
        self.add_decoder()

    def add_beside(self, level: int, width: int) -> None:
        """The image, halved (skip), or the features of the level above and the image (residual)."""
        taps = self.style.taps
        if self.encoder_type == "skip":
            halved = Resampled(self.channels, self.channels, 0, resample="down", taps=taps)
            self.enc[self.at(level, "aux_down")] = halved
            self.enc[self.at(level, "aux_skip")] = Resampled(self.channels, width, 1)
        if self.encoder_type == "residual":
            inputs = self.channels if level == 1 else self.widths[level - 2]
            self.enc[self.at(level, "aux_residual")] = Resampled(
                inputs, width, 3, resample="down", taps=taps, fused=True
            )

    def add_answer(self, level: int, width: int) -> None:
        """The answer of a level: of every one, or of the finest alone."""
        skip, outputs = self.decoder_type == "skip", self.out_channels
        if not skip and level:
            return
        if skip and level < len(self.widths) - 1:
            doubled = Resampled(outputs, outputs, 0, resample="up", taps=self.style.taps)
            self.dec[self.at(level, "aux_up")] = doubled
        self.dec[self.at(level, "aux_norm")] = capped_group_norm(width, self.style.eps)
        self.dec[self.at(level, "aux_conv")] = Resampled(width, outputs, 3)

    def attends_going_up(self, index: int) -> bool:
        """Only the last block of a level does."""
        return index == self.num_blocks

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Answers (b o h w) to images x (b c h w), c_noise (b,) and one-hot labels (b n)."""
        cos, sin = self.map_noise(c_noise)
        told = torch.cat([sin, cos], dim=1)
        if self.map_label is not None:
            assert labels is not None
            told = told + self.map_label(labels * math.sqrt(labels.shape[1]))
        embedding = F.silu(self.map_layer1(F.silu(self.map_layer0(told))))
        return self._up(*self._down(x, embedding), embedding)

    def _down(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest features, and the outputs of all blocks."""
        beside, skips = x, []
        for name, part in self.enc.items():
            if name.endswith("_aux_down"):
                beside = part(beside)
                continue
            if "_aux_" not in name:
                x = part(x, embedding) if isinstance(part, Block) else part(x)
                skips.append(x)
                continue
            x = x + part(beside)
            if name.endswith("_aux_residual"):
                beside = x = x / math.sqrt(2)
            skips[-1] = x
        return x, skips

    def _up(self, x: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        """The sum of the levels' answers."""
        answer: Tensor | None = None
        for name, part in self.dec.items():
            if name.endswith("_aux_up"):
                answer = part(answer)
            elif name.endswith("_aux_norm"):
                normed = part(x)
            elif name.endswith("_aux_conv"):
                more = part(F.silu(normed))
                answer = more if answer is None else answer + more
            else:
                x = part(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, embedding)
        assert answer is not None
        return answer


class DhariwalUNet(_UNet):
    """ADM: the embedding scales and shifts, attention has heads of 64 channels.

    Args:
        img_resolution: as of `SongUNet`, and so are the others.
        in_channels: channels of the images.
        out_channels: channels of the answer.
        label_dim: classes; 0 is unconditional.
        augment_dim: features of what augmentation did, which are zero here; 0 where there are none.
        model_channels: what the channels of all levels are multiples of.
        channel_mult: the channels of each level, finest first, as multiples.
        channel_mult_emb: features of the embedding, as a multiple.
        num_blocks: blocks of each level.
        attn_resolutions: heights of the levels with attention.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
    ) -> None:
        embedding = model_channels * channel_mult_emb
        super().__init__(
            size=img_resolution,
            widths=[model_channels * multiple for multiple in channel_mult],
            num_blocks=num_blocks,
            attention=attn_resolutions,
            embedding=embedding,
            style=Style(head_width=64),
        )
        self.map_noise = Sinusoids(model_channels, endpoint=False)
        self.map_augment = (
            nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        )
        self.map_layer0 = nn.Linear(model_channels, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.map_label = nn.Linear(label_dim, embedding, bias=False) if label_dim else None
        self.add_encoder(in_channels, self.widths[0])
        self.add_decoder()
        self.out_norm = capped_group_norm(self.widths[0])
        self.out_conv = Resampled(self.widths[0], out_channels, 3)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Answers (b o h w) to images x (b c h w), c_noise (b,) and one-hot labels (b n)."""
        told = torch.cat(self.map_noise(c_noise), dim=1)
        embedding = self.map_layer1(F.silu(self.map_layer0(told)))
        if self.map_label is not None:
            assert labels is not None
            embedding = embedding + self.map_label(labels)
        embedding, skips = F.silu(embedding), []
        for part in self.enc.values():
            x = part(x, embedding) if isinstance(part, Block) else part(x)
            skips.append(x)
        for name, part in self.dec.items():
            x = part(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, embedding)
        return self.out_conv(F.silu(self.out_norm(x)))


UNETS: dict[str, Callable[..., SongUNet | DhariwalUNet]] = {
    "SongUNet": SongUNet,
    "DhariwalUNet": DhariwalUNet,
}
