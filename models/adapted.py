"""Networks that `els.adapters` made, in the form of those of this project."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from els.adapters import Adapted
from els.denoiser import eps_from_x0
from els.errors import InputError
from els.models.blocks import Network, NetworkFacts


class AdaptedNetwork(Network):
    """An adapted network as net(x, t, label) -> eps_hat.

    Args:
        adapted: the network, whose `image_shape` is known.
        padding: "zeros" or "circular", which decides the machines it is compared with.
        details: how it is read, for people.
        code: what else tells it from others, such as a digest of the file it came from.

    Raises:
        InputError: when nobody said what its images are like.
    """

    place: Tensor

    def __init__(
        self, adapted: Adapted, *, padding: str = "zeros", details: str = "", code: str = ""
    ) -> None:
        if adapted.image_shape is None:
            raise InputError(
                f"{adapted!r} does not say what its images are like; give the adapter "
                "image_shape=(channels, height, width)"
            )
        channels, classes = adapted.image_shape[0], adapted.num_classes
        super().__init__(
            {"channels": channels, "num_classes": classes, "padding": padding, "norm": "none"}
        )
        self.adapted, self.details, self.code = adapted, details, code
        self.inside = nn.ModuleList(adapted.modules)  # so that they move and count with this
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Network.forward`."""
        return eps_from_x0(x, self.adapted(x, t, label), t, self.adapted.schedule)

    @property
    def identity(self) -> object:
        """See `Network.identity`."""
        return [self.adapted.identity, self.code]

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        return replace(super().facts, name=self.adapted.name, details=self.details)

    @property
    def receptive_field(self) -> int | None:
        """See `Network.receptive_field`: nobody said that it is less than the whole image."""
        return None


class RereadNetwork(AdaptedNetwork):
    """A network of this project's own classes that is read otherwise than as it stands.

    Args:
        origin: the network.
        adapted: the same, as somebody else would call it.
    """

    def __init__(self, origin: Network, adapted: Adapted) -> None:
        super().__init__(adapted, padding=origin.padding)
        self._origin = [origin]  # not a module of its own: it is among those of the function

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        known, adapted = self._origin[0].facts, self.adapted
        low, high = adapted.image_range
        told = f"read as {adapted.prediction} of images in [{low:g}, {high:g}]"
        return replace(known, details=", ".join(filter(None, (known.details, told))))

    @property
    def cell(self) -> int:
        """See `Network.cell`."""
        return self._origin[0].cell

    @property
    def receptive_field(self) -> int | None:
        """See `Network.receptive_field`."""
        return self._origin[0].receptive_field
