"""A network behind the denoiser contract."""

from __future__ import annotations

from copy import copy
from dataclasses import asdict
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor

from els.denoiser import Labels, Times, as_labels, as_times, within_range, x0_from_eps
from els.errors import InputError
from els.images import DataSpec
from els.models.blocks import Network, NetworkFacts, Trained
from els.models.formats.loaded import Declared
from els.sampling import Sampler
from els.schedule import CosineSchedule


class NetworkDenoiser(Sampler):
    """denoiser(x, t, label) -> x0_hat from a network that predicts eps.

    Attributes:
        net: the network.
        schedule: the noise schedule that it was trained with.
        image_shape: (c, h, w) of the images that it was trained on.
        data: where those images come from, or None when the checkpoint does not say.
        trained: how long and how well it was trained, or None when the checkpoint does not say;
            no part of its identity.
        declared: how its file was understood, or None for a network that came from no file.
        notes: what the user should know of that, a line each.
        clip: whether x0_hat is clamped to the data's range, see `clipped`.
    """

    clip = False

    def __init__(
        self,
        net: Network,
        *,
        schedule: CosineSchedule,
        image_shape: tuple[int, int, int],
        data: DataSpec | None,
        trained: Trained | None = None,
        declared: Declared | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.net = net
        self.schedule = schedule
        self.image_shape = image_shape
        self.data = data
        self.trained = trained
        self.declared = declared
        self.notes = notes

    def __repr__(self) -> str:
        facts, shape = self.facts, " x ".join(map(str, self.image_shape))
        classes = "" if facts.num_classes is None else f", {facts.num_classes} classes"
        return (
            f"NetworkDenoiser({facts.name}, {facts.padding} padding{classes}, "
            f"{facts.parameters:,} parameters, {shape})"
        )

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(chain(self.net.parameters(), self.net.buffers())).device

    @property
    def padding(self) -> str:
        """How the network pads, "zeros" or "circular"."""
        return self.net.padding

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for an unconditional network."""
        return self.net.num_classes

    @property
    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return self.net.parameter_count

    @property
    def receptive_field(self) -> int | None:
        """See `els.models.blocks.Network.receptive_field`."""
        return self.net.receptive_field

    @cached_property
    def identity(self) -> object:
        """Plain data that tells it from others: its facts, and a digest of its weights."""
        clipped = ["clip"] * self.clip
        return [asdict(self.facts), self.schedule.identity, self.net.identity, *clipped]

    def clipped(self) -> NetworkDenoiser:
        """The same network with x0_hat clamped to the data's range [-1, 1], as many samplers do."""
        other = copy(self)
        vars(other).pop("identity", None)
        other.clip = True
        return other

    def with_schedule(self, schedule: CosineSchedule) -> NetworkDenoiser:
        """The same network for a schedule of the same noise and other sampling steps."""
        other = copy(self)
        vars(other).pop("identity", None)
        other.schedule = schedule
        return other

    @property
    def facts(self) -> NetworkFacts:
        """See `els.models.blocks.NetworkFacts`."""
        return self.net.facts

    def __call__(self, x: Tensor, t: Times, label: Labels = None) -> Tensor:
        """x0_hat (b c h w); see `els.denoiser.Denoiser`. One t or label may stand for all images.

        Raises:
            InputError: when x does not have the network's image shape, a time or a label is out of
                range, or the answer is NaN or infinite though x is not.
        """
        if tuple(x.shape[1:]) != self.image_shape:
            raise InputError(
                f"the images to denoise have shape {tuple(x.shape[1:])}; "
                f"the network was trained on {self.image_shape}"
            )
        t, label = as_times(t, x), as_labels(label, x)
        if label is not None and self.num_classes is not None and len(label):
            low, high = int(label.min()), int(label.max())
            if low < 0 or high >= self.num_classes:
                raise InputError(
                    f"label {low if low < 0 else high} is out of range; "
                    f"the network knows 0..{self.num_classes - 1}"
                )
        x0_hat = x0_from_eps(x, self.net(x, t, label), t, self.schedule)
        finite = x0_hat.detach().flatten(1).isfinite().all(dim=1)
        if not finite.all() and x.detach().isfinite().all():
            at = float(t[~finite].max())
            raise InputError(
                f"the network ({self.facts.name}) answers with NaN or infinite numbers at "
                f"t = {at:g}; use an "
                "earlier checkpoint, or train it with a lower learning rate"
            )
        return within_range(x0_hat) if self.clip else x0_hat
