"""Networks of EDM (Karras et al. 2022) behind this project's contract.

They are D(y; sigma) = c_skip y + c_out F(c_in y; c_noise), with y = x_0 + sigma n. An image of
ours, x = alpha x_0 + sigma eps, is theirs divided by alpha, at sigma / alpha. How the four numbers
depend on sigma is the preconditioning (their table 1): EDM, VP, VE or iDDPM.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from els.denoiser import coefficients
from els.errors import InputError
from els.models.blocks import Network, NetworkFacts
from els.models.edm_unets import UNETS
from els.schedule import COSINE

Arguments = Mapping[str, object]


class Scaling(NamedTuple):
    """What the preconditioning multiplies by at some sigma, each (b 1 1 1), and c_noise (b,)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Preconditioned(Network):
    """A UNet of EDM as net(x, t, label) -> eps_hat at our t.

    Args:
        unet: which one, of `els.models.edm_unets.UNETS`.
        arguments: those of its constructor, without the images' size, channels and classes.
        channels: image channels c.
        size: height and width of the images.
        num_classes: number of classes, or None for an unconditional network.
        label_dropout: share of the images in training without their label; above 0 the network
            answers without a label too.
        constants: of the preconditioning.
    """

    answers = 1  # channels of the UNet's answer for each of the image's

    def __init__(
        self,
        unet: str,
        arguments: Arguments,
        channels: int,
        size: int,
        num_classes: int | None,
        label_dropout: float,
        constants: Mapping[str, float],
    ) -> None:
        told = {"unet": unet, "arguments": dict(arguments), "channels": channels, "size": size}
        told |= {"num_classes": num_classes, "label_dropout": label_dropout, **constants}
        super().__init__({**told, "padding": "zeros", "norm": "group"})
        if unet not in UNETS:
            raise InputError(f"unknown UNet '{unet}'; known are {', '.join(UNETS)}")
        self.model = UNETS[unet](
            size, channels, self.answers * channels, num_classes or 0, **arguments
        )
        self.label_dropout = label_dropout
        self.sigma_min, self.sigma_max = constants["sigma_min"], constants["sigma_max"]
        self.schedule = COSINE
        self._has_clamped = False

    def scaling(self, sigma: Tensor) -> Scaling:
        """The preconditioning at sigma (b,)."""
        raise NotImplementedError

    def denoised(self, y: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """D(y; sigma): the clean images (b c h w) of y (b c h w) at sigma (b,) and labels (b,).

        Noise levels outside of what the network was trained for are answered as at the nearest
        that is not, and the first time that is said.

        Raises:
            InputError: when a label is given to an unconditional network, or missing for one that
                always had it.
        """
        sigma = self._clamped(sigma)
        scaling = self.scaling(sigma.to(y.dtype))
        answer = self.model(scaling.c_in * y, scaling.c_noise, self._one_hot(label, y))
        return scaling.c_skip * y + scaling.c_out * answer[:, : self.channels]

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Network.forward`."""
        alpha, sigma = coefficients(t, x.double(), self.schedule)
        level = (sigma / alpha)[:, 0, 0, 0]
        x0_hat = self.denoised((x / alpha).to(x.dtype), level, label)
        return ((x - alpha * x0_hat) / sigma).to(x.dtype)

    def _clamped(self, sigma: Tensor) -> Tensor:
        kept = sigma.clamp(self.sigma_min, self.sigma_max)
        if not self._has_clamped and not torch.equal(kept, sigma):
            self._has_clamped = True
            warnings.warn(
                f"the network was trained for noise levels sigma of {self.sigma_min:.4g} to "
                f"{self.sigma_max:.4g}; those beyond, here {float(sigma.min()):.4g} to "
                f"{float(sigma.max()):.4g}, are answered as the nearest of them",
                stacklevel=4,
            )
        return kept

    def _one_hot(self, label: Tensor | None, y: Tensor) -> Tensor | None:
        """The labels as the network takes them (b n); zeros are the unconditional answer."""
        if self.num_classes is None:
            if label is not None:
                raise InputError("a label was given, but this network is not class-conditional")
            return None
        if label is not None:
            return F.one_hot(label, self.num_classes).to(y.dtype)
        if not self.label_dropout:
            raise InputError(
                f"this network is class-conditional: give labels 0..{self.num_classes - 1}"
            )
        return y.new_zeros(len(y), self.num_classes)

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        kind = type(self).__name__.removesuffix("Precond")
        levels = f"{kind} preconditioning, sigma {self.sigma_min:.4g} to {self.sigma_max:.4g}"
        return replace(super().facts, name=f"{self.config['unet']} of EDM", details=levels)

    @property
    def receptive_field(self) -> None:
        """See `Network.receptive_field`: group norms and attention see the whole image."""
        return None


class EDMPrecond(Preconditioned):
    """EDM's own: inputs and targets have unit variance for data of deviation `sigma_data`."""

    def __init__(
        self,
        unet: str,
        arguments: Arguments,
        channels: int,
        size: int,
        num_classes: int | None = None,
        label_dropout: float = 0.0,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
    ) -> None:
        constants = {"sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data}
        super().__init__(unet, arguments, channels, size, num_classes, label_dropout, constants)
        self.sigma_data = sigma_data

    def scaling(self, sigma: Tensor) -> Scaling:
        """See `Preconditioned.scaling`."""
        s, total = as_column(sigma), (as_column(sigma) ** 2 + self.sigma_data**2)
        return Scaling(
            c_skip=self.sigma_data**2 / total,
            c_out=s * self.sigma_data / total.sqrt(),
            c_in=1 / total.sqrt(),
            c_noise=sigma.log() / 4,
        )


class VPPrecond(Preconditioned):
    """Of the variance-preserving SDE (Song et al. 2021); the network predicts eps."""

    def __init__(
        self,
        unet: str,
        arguments: Arguments,
        channels: int,
        size: int,
        num_classes: int | None = None,
        label_dropout: float = 0.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,  # noqa: N803 - the paper's name
        epsilon_t: float = 1e-5,
    ) -> None:
        def sigma_at(t: float) -> float:
            return math.sqrt(math.expm1(beta_d * t**2 / 2 + beta_min * t))

        constants = {
            "sigma_min": sigma_at(epsilon_t) if sigma_min is None else sigma_min,
            "sigma_max": sigma_at(1.0) if sigma_max is None else sigma_max,
            "beta_d": beta_d,
            "beta_min": beta_min,
            "M": M,
            "epsilon_t": epsilon_t,
        }
        super().__init__(unet, arguments, channels, size, num_classes, label_dropout, constants)
        self.beta_d, self.beta_min, self.M = beta_d, beta_min, M

    def scaling(self, sigma: Tensor) -> Scaling:
        """See `Preconditioned.scaling`."""
        s = as_column(sigma)
        log = (1 + sigma.double() ** 2).log()
        t = ((self.beta_min**2 + 2 * self.beta_d * log).sqrt() - self.beta_min) / self.beta_d
        return Scaling(torch.ones_like(s), -s, (s**2 + 1).rsqrt(), ((self.M - 1) * t).to(s))


class VEPrecond(Preconditioned):
    """Of the variance-exploding SDE (Song et al. 2021)."""

    def __init__(
        self,
        unet: str,
        arguments: Arguments,
        channels: int,
        size: int,
        num_classes: int | None = None,
        label_dropout: float = 0.0,
        sigma_min: float = 0.02,
        sigma_max: float = 100.0,
    ) -> None:
        constants = {"sigma_min": sigma_min, "sigma_max": sigma_max}
        super().__init__(unet, arguments, channels, size, num_classes, label_dropout, constants)

    def scaling(self, sigma: Tensor) -> Scaling:
        """See `Preconditioned.scaling`."""
        s = as_column(sigma)
        return Scaling(torch.ones_like(s), s, torch.ones_like(s), (sigma / 2).log())


class iDDPMPrecond(Preconditioned):  # noqa: N801 - the file's name
    """Of improved DDPM (Nichol & Dhariwal 2021): M steps, and a variance beside the answer."""

    u: Tensor
    answers = 2

    def __init__(
        self,
        unet: str,
        arguments: Arguments,
        channels: int,
        size: int,
        num_classes: int | None = None,
        label_dropout: float = 0.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        C_1: float = 0.001,  # noqa: N803 - the paper's names
        C_2: float = 0.008,  # noqa: N803
        M: int = 1000,  # noqa: N803
    ) -> None:
        levels = _improved_levels(C_1, C_2, M)
        constants = {
            "sigma_min": levels[M - 1] if sigma_min is None else sigma_min,
            "sigma_max": levels[0] if sigma_max is None else sigma_max,
            "C_1": C_1,
            "C_2": C_2,
            "M": M,
        }
        super().__init__(unet, arguments, channels, size, num_classes, label_dropout, constants)
        self.M = M
        self.register_buffer("u", torch.tensor(levels))

    def scaling(self, sigma: Tensor) -> Scaling:
        """See `Preconditioned.scaling`; the network is told the step with the nearest sigma."""
        s = as_column(sigma)
        nearest = (sigma[:, None] - self.u.to(sigma)).abs().argmin(dim=1)
        return Scaling(torch.ones_like(s), -s, (s**2 + 1).rsqrt(), (self.M - 1 - nearest).to(s))


def _improved_levels(c_1: float, c_2: float, m: int) -> list[float]:
    """The sigmas of the M steps, falling, and 0."""
    if not 2 <= m <= 100_000:
        raise InputError(f"M is {m}; the steps of iDDPM are 2 to 100000")

    def alpha_bar(j: int) -> float:
        return math.sin(math.pi / 2 * j / m / (c_2 + 1)) ** 2

    levels = [0.0]
    for j in range(m, 0, -1):
        ratio = max(alpha_bar(j - 1) / alpha_bar(j), c_1)
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / ratio - 1))
    return levels[::-1]


def as_column(sigma: Tensor) -> Tensor:
    """Numbers (b,) as (b 1 1 1)."""
    return sigma[:, None, None, None]


PRECONDITIONINGS: dict[str, type[Preconditioned]] = {
    kind.__name__: kind for kind in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)
}
