"""The probes against denoisers whose gradients and symmetries are known."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import random_images
from torch import Tensor

from els.denoiser import eps_from_x0, x0_from_eps
from els.errors import InputError
from els.machines import make_machine
from els.models.networks import build_network
from els.probes import (
    Probes,
    default_shifts,
    effective_receptive_field,
    equivariance_error,
    shares_held,
    side_holding,
)
from els.schedule import CosineSchedule

SCHEDULE = CosineSchedule()


class Filter:
    """A convolution as a denoiser; the kernel (c c k k) may depend on nothing else."""

    def __init__(self, kernel: Tensor, *, circular: bool = False) -> None:
        self.kernel, self.circular = kernel, circular

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        r = self.kernel.shape[-1] // 2
        x = F.pad(x, (r, r, r, r), mode="circular" if self.circular else "constant")
        return F.conv2d(x, self.kernel.to(x))


class Net:
    """An untrained network as a denoiser."""

    def __init__(self, name: str = "ResNet", **config: object) -> None:
        torch.manual_seed(0)
        self.net = build_network(name, {"channels": 1, "num_classes": None, **config}).eval()

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return x0_from_eps(x, self.net(x, t.to(x.dtype), label), t, SCHEDULE)


def query(b: int, c: int, h: int, w: int, t: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(b, c, h, w, generator=generator)
    return x, torch.full((b,), t, dtype=torch.float64)


# --- receptive field ------------------------------------------------------------------------


@pytest.mark.parametrize("circular", [False, True])
def test_the_field_of_a_filter_is_the_energy_of_its_kernel(circular: bool) -> None:
    kernel = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    x, t = query(3, 2, 11, 9)
    field = effective_receptive_field(Filter(kernel, circular=circular), x.double(), t)
    expected = torch.zeros(11, 9, dtype=torch.float64)
    expected[3:8, 2:7] = kernel.square().sum(dim=(0, 1))
    torch.testing.assert_close(field, expected)


def test_a_box_filter_of_3_pixels_is_held_by_3_and_a_point_by_1() -> None:
    x, t = query(2, 1, 8, 8)
    box = shares_held(effective_receptive_field(Filter(torch.ones(1, 1, 3, 3)), x, t)).tolist()
    torch.testing.assert_close(box, [1 / 9, 1.0, 1.0, 1.0, 1.0])
    for share in (0.5, 0.9, 1.0):
        assert side_holding(box, share) == side_holding(box, share, centre=False) == 3
    assert side_holding(box, 0.1) == 1
    point = shares_held(effective_receptive_field(Filter(torch.ones(1, 1, 1, 1)), x, t)).tolist()
    assert side_holding(point, 0.9) == side_holding(point, 0.9, centre=False) == 1
    assert shares_held(torch.zeros(4, 4)).tolist() == [1, 1, 1]


def test_sides_grow_with_the_share_and_reach_the_end_of_an_even_image() -> None:
    shares = shares_held(torch.ones(6, 6, dtype=torch.float64)).tolist()
    torch.testing.assert_close(shares, [1 / 36, 9 / 36, 25 / 36, 1.0])
    assert [side_holding(shares, s) for s in (0.02, 0.25, 0.5, 0.7, 1.0)] == [1, 3, 5, 7, 7]


def test_beside_the_centre_the_field_has_one_shape_for_x0_and_for_eps() -> None:
    network, (x, t) = Net(width=16, depth=2), query(4, 1, 12, 12, t=0.1)

    def eps(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return eps_from_x0(x, network(x, t, label), t, SCHEDULE)

    fields = [effective_receptive_field(d, x, t) for d in (network, eps)]
    alpha, sigma = SCHEDULE.alpha(t[0]), SCHEDULE.sigma(t[0])
    beside = torch.ones(12, 12, dtype=torch.bool)
    beside[6, 6] = False
    torch.testing.assert_close(
        fields[0][beside], (sigma / alpha) ** 2 * fields[1][beside], rtol=1e-3, atol=1e-9
    )
    shares = [shares_held(field).tolist() for field in fields]
    assert abs(shares[0][0] - shares[1][0]) > 0.1  # the centre itself is another matter
    sides = [[side_holding(s, p, centre=False) for p in (0.5, 0.9)] for s in shares]
    assert sides[0] == sides[1]


def test_the_field_is_a_mean_over_images_and_leaves_no_gradients_behind() -> None:
    network, (x, t) = Net(width=16, depth=2, num_classes=3), query(3, 1, 8, 8)
    label = torch.tensor([0, 2, 1])
    field = effective_receptive_field(network, x, t, label)
    singles = [
        effective_receptive_field(network, x[i : i + 1], t[:1], label[i : i + 1]) for i in range(3)
    ]
    torch.testing.assert_close(field, torch.stack(singles).mean(dim=0), rtol=1e-3, atol=1e-9)
    with torch.no_grad():
        assert torch.equal(effective_receptive_field(network, x, t, label), field)
    assert not x.requires_grad
    assert all(p.grad is None for p in network.net.parameters())


def test_a_resnet_looks_no_further_than_it_can() -> None:
    network, (x, t) = Net(width=16, depth=2), query(2, 1, 16, 16)
    shares = shares_held(effective_receptive_field(network, x, t)).tolist()
    assert side_holding(shares, 1.0) <= network.net.receptive_field == 9


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize("kind", ["ideal", "boundary"])
def test_a_machine_has_no_gradient(kind: str, engine: str) -> None:
    machine = make_machine(kind, random_images(), size=None if kind == "ideal" else 3,
                           engine=engine)  # fmt: skip
    with pytest.raises(InputError, match="no gradient"):
        effective_receptive_field(machine, *query(1, 1, 8, 8))


# --- equivariance ---------------------------------------------------------------------------


def test_a_circular_network_is_equivariant() -> None:
    error = equivariance_error(Net(width=16, depth=3, padding="circular"), *query(2, 1, 12, 12))
    assert error.shape == (1 + 6,)
    assert error.max() < 1e-5


def test_zero_padding_is_felt_as_far_as_the_receptive_field_reaches() -> None:
    network = Net(width=16, depth=2)
    radius = network.net.receptive_field // 2
    overall, *by_distance = equivariance_error(network, *query(2, 1, 16, 16)).tolist()
    assert max(by_distance[radius:]) < 1e-5 < min(by_distance[:radius])
    assert by_distance[0] > 0.05
    assert by_distance[0] > overall > by_distance[radius - 1]


@pytest.mark.parametrize(("kind", "size"), [("equivariant", 3), ("local", 3), ("boundary", 5)])
def test_machines_are_as_equivariant_as_their_names_say(kind: str, size: int) -> None:
    machine = make_machine(kind, random_images(h=10, w=10), size=size)
    overall, *by_distance = equivariance_error(machine, *query(2, 1, 10, 10)).tolist()
    if kind == "equivariant":
        assert overall < 1e-5
    elif kind == "local":
        assert min(by_distance) > 0.3
    else:  # breaks equivariance as far as its window reaches over the border
        assert max(by_distance[size // 2 :]) < 1e-5 < min(by_distance[: size // 2])


def test_unrelated_answers_have_error_1_and_the_same_everywhere_0() -> None:
    generator = torch.Generator().manual_seed(0)

    def unrelated(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return 3 + 2 * torch.randn(x.shape, generator=generator)

    query_ = query(64, 2, 16, 16)
    error = equivariance_error(unrelated, *query_)
    torch.testing.assert_close(error, torch.ones_like(error), atol=0.1, rtol=0)
    assert equivariance_error(lambda x, t, label: torch.ones_like(x), *query_).tolist() == [0] * 9


def test_the_pairs_are_those_of_the_definition() -> None:
    # The answer is the row that a pixel lies in, whatever is there.
    def rows(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.arange(6.0)[:, None].expand(x.shape[2:]).expand_as(x)

    error = equivariance_error(rows, *query(1, 1, 6, 6), shifts=[(1, 0)]).square()
    unrelated = 2 * torch.arange(6.0).var(correction=0).double()
    # Every pixel differs by 1 from where it came from, but in row 0, which came from row 5.
    torch.testing.assert_close(error[0], (5 * 1 + 25) / 6 / unrelated)
    # Distance 0 is rows 0, 1 and 5, and the outer columns of the rest; 2 the midst, row 3.
    torch.testing.assert_close(error[1], (6 * 25 + (6 + 6 + 3 * 2) * 1) / 24 / unrelated)
    torch.testing.assert_close(error[2:], torch.ones(2).double() / unrelated)


@pytest.mark.parametrize("shape", [(7, 7), (5, 8), (8, 5), (2, 2), (3, 3)])
def test_every_distance_has_pairs_whatever_the_shape(shape: tuple[int, int]) -> None:
    error = equivariance_error(Net(width=16, depth=1), *query(1, 1, *shape))
    assert error.shape == (1 + min(shape) // 2,)
    assert error.isfinite().all()


def test_shifts() -> None:
    assert default_shifts(4) == [(1, 0), (0, 1), (-1, 1), (2, 0), (0, 2), (-2, 2)]
    with pytest.raises(InputError, match="shifts that move the image"):
        equivariance_error(Net(width=16, depth=1), *query(1, 1, 8, 8), shifts=[(0, 8)])


def test_attention_on_a_torus_is_equivariant_to_shifts_by_whole_cells() -> None:
    network = Net("UNet", widths=[16, 32], embedding=16, padding="circular", attention=[0, 1])
    for name, value in network.net.named_parameters():
        if name.endswith("attention.output.weight"):
            torch.nn.init.normal_(value)
    x, t = query(1, 1, 8, 8)
    whole, half = (equivariance_error(network, x, t, shifts=[(s, s)])[0] for s in (2, 1))
    assert whole < 1e-5 < half


# --- on disk --------------------------------------------------------------------------------


def test_probes_come_back_from_disk_unchanged(tmp_path: Path) -> None:
    probes = Probes(
        seeds=(0, 1), t=(1.0, 0.5),
        shares=((0.2, 0.6, 1.0), (0.6, 0.95, 1.0)), equivariance=((0.5, 1.0), (0.0, 0.0)),
    )  # fmt: skip
    assert probes.sides() == {
        "erf/50": [3, 1], "erf/90": [5, 3], "erf_beside/50": [3, 3], "erf_beside/90": [5, 5],
    }  # fmt: skip
    probes.save(tmp_path / "network.json")
    assert Probes.load(tmp_path / "network.json") == probes
    for content in ("{}", "[]", "not json"):
        (tmp_path / "network.json").write_text(content)
        with pytest.raises(InputError, match="holds no probes"):
            Probes.load(tmp_path / "network.json")
    with pytest.raises(InputError, match="there is no file"):
        Probes.load(tmp_path / "nowhere.json")


def test_one_time_stands_for_all_images() -> None:
    (x, t), net = query(2, 1, 12, 12), Net(width=16, depth=1)
    for measure in (effective_receptive_field, equivariance_error):
        torch.testing.assert_close(measure(net, x, 0.5), measure(net, x, t), equal_nan=True)
