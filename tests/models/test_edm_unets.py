"""The pieces and formulas of EDM's networks against their definitions, written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from els.errors import InputError
from els.models.edm import EDMPrecond, Preconditioned, VEPrecond, VPPrecond, iDDPMPrecond
from els.models.edm_unets import DhariwalUNet, RandomSinusoids, Resampled, Sinusoids, SongUNet


def filtered(x: Tensor, taps: list[float]) -> Tensor:
    """Each row and column of x (h w) convolved with taps / sum, longer by len(taps) - 1."""
    line = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    out = torch.zeros(x.shape[0] + len(taps) - 1, x.shape[1] + len(taps) - 1, dtype=x.dtype)
    for i, a in enumerate(line):
        for j, b in enumerate(line):
            out[i : i + x.shape[0], j : j + x.shape[1]] += a * b * x
    return out


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_filters_halve_and_double_as_they_are_defined(taps: list[float]) -> None:
    x, reach = torch.randn(1, 2, 8, 8), len(taps) // 2 - 1
    down = Resampled(2, 2, 0, resample="down", taps=taps)(x)
    up = Resampled(2, 2, 0, resample="up", taps=taps)(x)
    assert (down.shape, up.shape) == ((1, 2, 4, 4), (1, 2, 16, 16))
    for channel in range(2):
        # Pixel i of the half image is between pixels 2 i and 2 i + 1 of the whole one.
        whole = filtered(x[0, channel], taps)
        half = whole[1 + reach :: 2, 1 + reach :: 2][:4, :4]
        torch.testing.assert_close(down[0, channel], half)
        spread = torch.zeros(16, 16)
        spread[::2, ::2] = x[0, channel]
        double = 4 * filtered(spread, taps)[reach : reach + 16, reach : reach + 16]
        torch.testing.assert_close(up[0, channel], double)
    constant = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(
        Resampled(2, 2, 0, resample="up", taps=taps)(constant)[..., 4:-4, 4:-4],
        torch.ones(1, 2, 8, 8),
    )


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_a_fused_convolution_is_one_before_the_filter(taps: list[float]) -> None:
    fused = Resampled(3, 5, 3, resample="down", taps=taps, fused=True)
    nn.init.normal_(fused.bias)
    x, reach = torch.randn(1, 3, 8, 8), (len(taps) - 1) // 2
    wide = F.conv2d(F.pad(x, [1 + reach] * 4), fused.weight)
    halved = Resampled(5, 5, 0, resample="down", taps=taps)._filtered(wide, padding=0)
    expected = halved + fused.bias[:, None, None]
    assert expected.shape == (1, 5, 4, 4)
    torch.testing.assert_close(fused(x), expected)


def test_sinusoids_of_the_noise_level() -> None:
    c_noise = torch.tensor([0.7, -2.0])
    for endpoint, last in ((True, 1e-4), (False, 10 ** (-4 * 3 / 4))):
        cos, sin = Sinusoids(8, endpoint=endpoint)(c_noise)
        torch.testing.assert_close(cos[:, 0], c_noise.cos())
        torch.testing.assert_close(sin[:, -1], (last * c_noise).sin())
    drawn = RandomSinusoids(8)
    torch.testing.assert_close(drawn(c_noise)[1][1, 2], (-4 * math.pi * drawn.freqs[2]).sin())


class _Fixed(nn.Module):
    """Stands for the UNet: keeps what it is given, and answers the same."""

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        self.x, self.c_noise = x, c_noise
        return torch.full_like(x, 2.0).repeat(1, 2, 1, 1)


SIGMA = torch.tensor([0.03, 0.4, 6.0, 70.0])
Y = torch.randn(4, 1, 8, 8)


def scaled(maker: type[Preconditioned]) -> tuple[list[Tensor], Preconditioned]:
    """c_skip, c_out, c_in and c_noise as a network uses them."""
    net = maker("SongUNet", {"model_channels": 8, "channel_mult": [1], "num_blocks": 1}, 1, 8)
    fixed = net.model = _Fixed()
    nothing, zero = net.denoised(0 * Y, SIGMA), net.denoised(Y, SIGMA)
    c_out = nothing[:, 0, 0, 0] / 2
    c_skip = ((zero - nothing) / Y)[:, 0, 0, 0]
    return [c_skip, c_out, (fixed.x / Y)[:, 0, 0, 0], fixed.c_noise], net


def test_preconditionings_are_those_of_the_papers_table() -> None:
    one, s = torch.ones(4), SIGMA.double()
    total = (s**2 + 0.25).sqrt()
    expected = {
        EDMPrecond: [0.25 / total**2, 0.5 * s / total, 1 / total, s.log() / 4],
        VPPrecond: [one, -s, 1 / (s**2 + 1).sqrt(), None],
        VEPrecond: [one, s, one, (s / 2).log()],
        iDDPMPrecond: [one, -s, 1 / (s**2 + 1).sqrt(), None],
    }
    for maker, wanted in expected.items():
        for found, value in zip(scaled(maker)[0], wanted, strict=True):
            if value is not None:
                torch.testing.assert_close(found, value.float(), rtol=2e-4, atol=1e-4)


def test_vp_is_told_the_time_at_which_its_noise_is_so_strong() -> None:
    (_, _, _, c_noise), net = scaled(VPPrecond)
    t = c_noise.double() / 999
    torch.testing.assert_close(
        (torch.exp(19.9 * t**2 / 2 + 0.1 * t) - 1).sqrt(), SIGMA.double(), rtol=1e-4, atol=1e-6
    )
    assert net.sigma_max == pytest.approx(152.17, rel=1e-4)


def test_iddpm_is_told_the_nearest_of_its_steps() -> None:
    (_, _, _, c_noise), net = scaled(iDDPMPrecond)
    assert len(net.u) == 1001
    assert net.u[-1] == 0
    # u_j-1^2 + 1 = (u_j^2 + 1) / max(alpha_bar_j-1 / alpha_bar_j, .001)
    j = torch.arange(1001, dtype=torch.float64)
    alpha_bar = (math.pi / 2 * j / 1000 / 1.008).sin() ** 2
    ratio = (alpha_bar[:-1] / alpha_bar[1:]).clamp(min=0.001)
    squares = net.u.double() ** 2 + 1
    torch.testing.assert_close(squares[:-1], squares[1:] / ratio, rtol=1e-5, atol=0)
    steps = 999 - c_noise.long()
    for sigma, step in zip(SIGMA, steps, strict=True):
        assert abs(net.u[step] - sigma) == (net.u - sigma).abs().min()


def test_what_cannot_be_built_is_refused() -> None:
    small = {"model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1}
    with pytest.raises(InputError, match="encoder_type is 'x'; it must be one of standard, skip"):
        SongUNet(8, 1, 1, **small, encoder_type="x")
    with pytest.raises(InputError, match="must be levels of at least 4 channels"):
        DhariwalUNet(8, 1, 1, model_channels=2)
    with pytest.raises(InputError, match="unknown UNet 'VNet'; known are SongUNet"):
        EDMPrecond("VNet", {}, 1, 8)
    with pytest.raises(InputError, match="M is 1; the steps of iDDPM"):
        iDDPMPrecond("SongUNet", small, 1, 8, M=1)
