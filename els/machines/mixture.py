"""Convex mixtures of machines, with weights for every time."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from els.denoiser import Labels, Times
from els.errors import InputError
from els.images import ImageSet
from els.machines.base import Machine, MachineOptions, Number, value_identity
from els.schedule import CosineSchedule


class WeightsByTime(Protocol):
    """The weights of a mixture for every time, such as `els.stacking.Weights`."""

    def at(self, t: float) -> Sequence[float]:
        """The weight of every component at time t, which add up to 1."""
        ...


@dataclass(frozen=True)
class Part:
    """A machine at some values of its scale, each a component of the mixture.

    Attributes:
        machine: the machine.
        values: of its scale; (`NO_VALUE`,) without one.
    """

    machine: Machine
    values: tuple[Number, ...]


class Mixture(Machine):
    """x0_hat = sum_j w_j(t) x0_hat_j, a composition of other machines.

    Attributes:
        parts: the machines.
        weights: of the components, by time; None until they are fitted.
    """

    def __init__(
        self,
        kind: str,
        images: ImageSet,
        *,
        parts: Sequence[Part],
        weights: WeightsByTime | None,
        schedule: CosineSchedule,
        clip: bool = False,
    ) -> None:
        super().__init__(kind, images, schedule=schedule, options=MachineOptions(clip=clip))
        self.parts = tuple(parts)
        self.weights = _checked_weights(weights)

    @property
    def identity(self) -> list[object]:
        """See `Machine.identity`."""
        parts = [[part.machine.identity, list(part.values)] for part in self.parts]
        return [*super().identity, parts, value_identity(self.weights)]

    def engines_on(self, device: torch.device) -> tuple[str, ...]:
        """See `Machine.engines_on`: those of its parts."""
        return tuple(name for part in self.parts for name in part.machine.engines_on(device))

    @property
    def names(self) -> tuple[str, ...]:
        """The components, such as "boundary 5", in order."""
        return tuple(
            f"{part.machine.kind} {value:g}" if part.machine.scale else part.machine.kind
            for part in self.parts
            for value in part.values
        )

    def _about(self) -> list[str]:
        """See `Machine._about`."""
        fitted = "no weights yet" if self.weights is None else "fitted weights"
        return [f"{len(self.names)} components", fitted]

    @torch.no_grad()
    def components(self, x: Tensor, t: Times, label: Labels = None) -> Tensor:
        """What every component answers (k b c h w); arguments as `Machine.__call__`."""
        t, label = self.check_query(x, t, label)
        out = x.new_empty(len(self.names), *x.shape)
        for (_, one_label), i in self.group_queries(t, label, None).items():
            images = self.of_class(one_label)
            answers: list[Tensor] = []
            for part in self.parts:
                answers += part.machine.x0_hats(x[i], t[i], images, part.values)
            for row, answer in zip(out, answers, strict=True):
                row[i] = answer.to(x)
        return out

    def fitted(self, size: Any) -> Self:
        """The same mixture with other weights.

        Raises:
            InputError: when they are not weights by time.
        """
        other = copy(self)
        other.weights = _checked_weights(size)
        return other

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        if self.weights is None:
            raise InputError(f"the {self.kind} machine needs fitted weights")
        weights = torch.tensor([self.weights.at(time) for time in t.tolist()]).to(x)
        weights = weights.view(len(x), -1)  # (b k)
        if weights.shape[1] != len(self.names):
            raise InputError(
                f"there are {weights.shape[1]} weights for the {len(self.names)} components "
                f"{', '.join(self.names)}"
            )
        total, start = torch.zeros_like(x), 0
        for part in self.parts:
            mine = weights[:, start : start + len(part.values)]
            start += len(part.values)
            used = [i for i in range(len(part.values)) if mine[:, i].any()]
            if used:
                some = part.machine.x0_hats(x, t, images, tuple(part.values[i] for i in used))
                for i, answer in zip(used, some, strict=True):
                    total += mine[:, i].view(-1, 1, 1, 1) * answer.to(x)
        return [total] * len(values)


def _checked_weights(weights: Any) -> WeightsByTime | None:
    if weights is not None and not hasattr(weights, "at"):
        raise InputError(
            f"the weights of the mixture are {weights!r}; they must be fitted, as those of "
            "els.stacking.fit_weights"
        )
    return weights
