"""One tester for all machines: what each of them promises, whatever it computes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from conftest import random_images

from els.errors import InputError
from els.machines import MACHINES, Machine, make_machine
from els.machines.base import PosteriorMachine
from els.machines.local import PatchMachine
from els.mosaic import trace
from els.sampling import ddim, sample, seeded_noise
from els.schedule import CosineSchedule

IMAGES = random_images(8, 2, 6, 6, classes=2)
GREY = random_images(8, 1, 6, 6, classes=2)


class Even:
    """Weights of a mixture that are all the same."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.identity = ["even", count]

    def at(self, t: float) -> tuple[float, ...]:
        """See `WeightsByTime`."""
        return (1 / self.count,) * self.count


class MachineTester:
    """Holds a kind of machine to what every machine promises."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
        self.t = torch.tensor([0.1, 0.4, 0.4, 0.9], dtype=torch.float64)
        self.label = torch.tensor([0, 1, 0, 1])

    def make(self, images: Any = IMAGES, **options: Any) -> Machine:
        """A machine with values for its scale."""
        machine = make_machine(self.kind, images, **options)
        if self.kind == "mixture":
            return machine.fitted(Even(len(machine.names)))
        if machine.scale is None:
            return machine
        return machine.fitted(machine.allowed(machine.scale.candidates)[0])

    def check(self) -> None:
        """Run every check."""
        self.a_batch_is_its_singletons()
        self.chunks_and_engines_change_nothing()
        self.a_class_is_a_smaller_set_of_images()
        self.answers_have_the_dtype_of_the_question()
        self.bad_queries_are_refused()
        self.one_number_stands_for_a_batch()
        self.it_can_be_sampled()
        self.clipped_answers_stay_in_the_range()
        self.identity_tells_machines_apart()

    def a_batch_is_its_singletons(self) -> None:
        """Queries do not know of each other."""
        machine = self.make()
        together = machine(self.x, self.t, self.label)
        alone = [machine(self.x[i : i + 1], self.t[i : i + 1], self.label[i : i + 1])
                 for i in range(4)]  # fmt: skip
        torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-5)
        assert machine(self.x[:0], self.t[:0]).shape == (0, 2, 6, 6)

    def chunks_and_engines_change_nothing(self) -> None:
        """How it is computed is no part of the answer."""
        want = self.make()(self.x, self.t)
        for options in ({"chunk": 3}, {"engine": "torch"}, {"engine": "torch", "chunk": 1}):
            got = self.make(**options)(self.x, self.t)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)

    def a_class_is_a_smaller_set_of_images(self) -> None:
        """A label leaves the images of its class."""
        got = self.make()(self.x[:2], self.t[:2], torch.tensor([1, 1]))
        want = self.make(IMAGES.of_class(1))(self.x[:2], self.t[:2])
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        with pytest.raises(InputError, match="no image has label 5"):
            self.make()(self.x[:1], self.t[:1], torch.tensor([5]))

    def answers_have_the_dtype_of_the_question(self) -> None:
        """In float64 as in float32, and much the same."""
        single, double = (self.make()(self.x.to(dtype), self.t)
                          for dtype in (torch.float32, torch.float64))  # fmt: skip
        assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)

    def bad_queries_are_refused(self) -> None:
        """Images of another shape, and such as are not finite."""
        machine = self.make()
        with pytest.raises(InputError, match="they must be the same"):
            machine(self.x[..., :5], self.t)
        with pytest.raises(InputError, match="NaN or infinite"):
            machine(self.x * torch.nan, self.t)

    def one_number_stands_for_a_batch(self) -> None:
        """A time or a class is given once, as a number or a tensor without dimensions."""
        machine = self.make()
        want = machine(self.x, torch.full((4,), 0.4, dtype=torch.float64), torch.ones(4).long())
        for t in (0.4, torch.tensor(0.4, dtype=torch.float64)):
            assert torch.equal(machine(self.x, t, 1), want)
            assert torch.equal(machine.at_values(self.x, t, None, torch.tensor(1))[0], want)
        if isinstance(machine, PosteriorMachine):
            torch.testing.assert_close(
                machine.posterior(self.x, 0.4, 1).effective_size,
                machine.posterior(self.x, self.t.new_full((4,), 0.4), 1).effective_size,
            )
        for t in (0, 1.01, self.t[:3]):
            with pytest.raises(InputError, match=r"^t (is|has shape)"):
                machine(self.x, t)
        with pytest.raises(InputError, match="uint8; they must be floats"):
            machine(self.x.byte(), 0.5)

    def it_can_be_sampled(self) -> None:
        """By its own method and from any seeds, with the same noise for the same seed."""
        machine = self.make()
        noise = seeded_noise(range(3, 5), (2, 6, 6))
        want = ddim(machine, noise, steps=2, schedule=machine.schedule)
        assert torch.equal(machine.sample(2, seed=3, steps=2), want)
        got = sample(machine, [4, 3], steps=2)
        torch.testing.assert_close(got, want.flip(0), rtol=1e-4, atol=1e-4)
        of_class = ddim(machine, noise, steps=2, label=torch.tensor([1, 1]))
        assert torch.equal(machine.sample(2, 3, 2, label=1), of_class)

    def clipped_answers_stay_in_the_range(self) -> None:
        """Clipped is the same answer, clamped; also where it is estimated or traced."""
        x, t = 9 * self.x, self.t.new_tensor(0.1)
        want, clipped = self.make()(x, t).clamp(-1, 1), self.make(clip=True)
        torch.testing.assert_close(clipped(x, t), want, rtol=1e-4, atol=1e-5)
        assert clipped(x, t).abs().max() <= 1
        assert clipped.estimating(0.1)(x, t).abs().max() <= 1
        if isinstance(clipped, PatchMachine):
            assert trace(clipped, x, t)[0].abs().max() <= 1

    def identity_tells_machines_apart(self) -> None:
        """It is plain data that changes with all that changes an answer, and with nothing else."""
        machine = self.make()
        identity = json.dumps(machine.identity)
        same: list[dict[str, Any]] = [{"engine": "torch"}, {"chunk": 3}]
        if not MACHINES[self.kind].patches:
            same.append({"tolerance": 0.1})  # the others are always exact
        for options in same:
            assert json.dumps(self.make(**options).identity) == identity
        changes: list[dict[str, Any]] = [{"schedule": CosineSchedule(0.02)}, {"clip": True}]
        if MACHINES[self.kind].symmetries:
            changes += [{"symmetries": ["flip"]}, {"symmetries": ["turns"]}]
        if MACHINES[self.kind].patches:
            changes += [{"temperature": 2.0}, {"window": "flat"}, {"tolerance": 0.1}]
        if self.kind == "boundary":
            changes.append({"shift": 1})
        if self.kind == "mixture":
            changes.append({"around": "equivariant"})
        others = [self.make(**options) for options in changes]
        others.append(self.make(IMAGES.take(torch.arange(7))))
        if machine.scale is not None:
            others.append(machine.fitted(machine.allowed(machine.scale.candidates)[1]))
        told = [json.dumps(other.identity) for other in others]
        assert len({identity, *told}) == 1 + len(told)
