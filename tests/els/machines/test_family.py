"""The machines beside the paper's four, each against its definition and its limits."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import random_images
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from els.engines.native_engine import available
from els.errors import InputError
from els.images import ImageSet, load_images, to_float
from els.machines import MACHINES, make_machine
from els.schedule import CosineSchedule

SCHEDULE = CosineSchedule()
ENGINES = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(available() is not None, reason="no compiler")),
]
ALONE = [kind for kind in MACHINES if kind != "mixture"]  # which is a mixture of others
DIALS = {
    "pca_local": 0.1,
    "smoothed": 0.3,
    "boundary_soft": 1.0,
    "equivariant_soft": 1.0,
    "patch_composite_soft": 1.0,
}


def noisy(images: ImageSet, b: int, t: float, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0 = to_float(images.pixels)[torch.arange(b) % len(images)]
    x = SCHEDULE.alpha(t) * x0 + SCHEDULE.sigma(t) * torch.randn(x0.shape, generator=generator)
    return x.float(), torch.full((b,), t, dtype=torch.float64)


def scalars(t: float) -> tuple[float, float]:
    return float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))


@pytest.mark.parametrize("kind", ALONE)
def test_a_batch_of_times_and_labels_equals_its_singletons_in_any_chunks(kind: str) -> None:
    images = random_images(10, 2, 8, 8, classes=2)
    x = torch.cat([noisy(images, 1, t)[0] for t in (0.1, 0.5, 0.5, 0.9)])
    times, label = torch.tensor([0.1, 0.5, 0.5, 0.9]), torch.tensor([0, 1, 0, 1])
    size = DIALS.get(kind, 3)
    together = make_machine(kind, images, size=size)(x, times, label)
    machine = make_machine(kind, images, size=size, chunk=3)
    for i in range(4):
        alone = machine(x[i : i + 1], times[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-4)
    only = make_machine(kind, images.of_class(1), size=size)
    torch.testing.assert_close(together[1::2], only(x, times)[1::2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in ALONE if kind != "wiener"])
def test_answers_lie_within_the_training_pixels(kind: str) -> None:
    images = random_images(5, 1, 7, 7)
    for scale, t in itertools.product((0.1, 30.0), (0.02, 0.5, 1.0)):
        x = scale * torch.randn(2, 1, 7, 7, generator=torch.Generator().manual_seed(3))
        answer = make_machine(kind, images, size=DIALS.get(kind, 3))(x, torch.tensor([t, t]))
        assert answer.isfinite().all()
        assert answer.abs().max() <= 1 + 1e-4


# --- wiener ---------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_wiener_is_the_posterior_mean_of_gaussian_data(t: float) -> None:
    d, n = 12, 60_000
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64) * 0.06
    mean = torch.linspace(-0.3, 0.3, d, dtype=torch.float64)
    data = mean + torch.randn(n, d, generator=generator, dtype=torch.float64) @ root.T
    pixels = ((data + 1) * 127.5).round().clamp(0, 255).byte().reshape(n, 1, 3, 4)
    covariance = root @ root.T
    alpha, sigma = scalars(t)
    x = alpha * data[:5] + sigma * torch.randn(5, d, generator=generator, dtype=torch.float64)
    noisy_covariance = alpha**2 * covariance + sigma**2 * torch.eye(d, dtype=torch.float64)
    truth = mean + alpha * (x - alpha * mean) @ torch.linalg.solve(noisy_covariance, covariance)
    machine = make_machine("wiener", ImageSet(pixels))
    answer = machine(x.reshape(5, 1, 3, 4).float(), torch.full((5,), t))
    torch.testing.assert_close(answer.flatten(1).double(), truth, atol=0.01, rtol=0)


def test_wiener_solves_its_own_equations_with_fewer_images_than_pixels() -> None:
    images = random_images(9, 2, 4, 5)
    x, t = noisy(images, 3, 0.4)
    alpha, sigma = scalars(0.4)
    y = to_float(images.pixels).flatten(1).double()
    mean, centred = y.mean(0), y - y.mean(0)
    covariance = centred.T @ centred / len(y)
    noisy_covariance = alpha**2 * covariance + sigma**2 * torch.eye(40, dtype=torch.float64)
    gain = alpha * torch.linalg.solve(noisy_covariance, covariance)
    truth = mean + (x.flatten(1).double() - alpha * mean) @ gain
    answer = make_machine("wiener", images)(x, t)
    torch.testing.assert_close(answer.flatten(1).double(), truth, atol=1e-5, rtol=1e-5)


# --- whole images ---------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_global_equivariant_is_the_ideal_machine_over_all_shifts(t: float) -> None:
    images = random_images(4, 2, 5, 6)
    shifts = itertools.product(range(5), range(6))
    everywhere = torch.cat([images.pixels.roll(shift, dims=(2, 3)) for shift in shifts])
    x, times = noisy(images, 2, t)
    ideal = make_machine("ideal", ImageSet(everywhere))(x, times)
    machine = make_machine("global_equivariant", images, chunk=3)
    torch.testing.assert_close(machine(x, times), ideal, atol=2e-5, rtol=1e-4)
    shifted = machine(x.roll((2, 1), dims=(2, 3)), times)
    torch.testing.assert_close(shifted, machine(x, times).roll((2, 1), dims=(2, 3)))


def test_nearest_gives_the_nearest_image() -> None:
    images = random_images(20, 1, 6, 6)
    x, times = noisy(images, 5, 0.6)
    alpha, _ = scalars(0.6)
    distances = (x[:, None] - alpha * to_float(images.pixels)).square().sum(dim=(2, 3, 4))
    best = distances.argmin(dim=1)
    answer = make_machine("nearest", images)(x, times)
    torch.testing.assert_close(answer, to_float(images.pixels[best]))
    label = torch.tensor([1, 0, 1, 0, 1])
    labelled = ImageSet(images.pixels, torch.arange(20) % 2)
    answer = make_machine("nearest", labelled)(x, times, label)
    distances[torch.arange(20) % 2 != label[:, None]] = torch.inf
    torch.testing.assert_close(answer, to_float(images.pixels[distances.argmin(dim=1)]))


def test_temperature_goes_from_the_nearest_image_over_ideal_to_the_mean() -> None:
    images = random_images(6, 1, 6, 6)
    x, times = noisy(images, 2, 0.6)
    machine = make_machine("tempered", images)
    for value, kind in ((1e-3, "nearest"), (1.0, "ideal")):
        expected = make_machine(kind, images)(x, times)
        torch.testing.assert_close(machine(x, times, size=value), expected, atol=1e-5, rtol=0)
    mean = to_float(images.pixels).mean(dim=0)
    torch.testing.assert_close(machine(x, times, size=1e6)[0], mean, atol=1e-3, rtol=0)


def test_no_smoothing_is_ideal_and_much_of_it_is_the_mean() -> None:
    images = random_images(6, 1, 6, 6)
    x, times = noisy(images, 2, 0.2)
    machine = make_machine("smoothed", images)
    torch.testing.assert_close(machine(x, times, size=0), make_machine("ideal", images)(x, times))
    spread = [float(machine(x, times, size=s).var()) for s in (0.0, 3.0, 300.0)]
    assert spread[0] > spread[1] > spread[2]


# --- masks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_pca_local_with_a_full_mask_is_ideal(t: float) -> None:
    images = random_images(30, 2, 6, 5)
    x, times = noisy(images, 2, t)
    full = make_machine("pca_local", images, size=0.0, chunk=7)(x, times)
    torch.testing.assert_close(full, make_machine("ideal", images)(x, times), atol=1e-5, rtol=1e-4)
    local = make_machine("pca_local", images, size=0.5)(x, times)
    assert (local - full).abs().max() > 1e-3


def test_pca_local_looks_where_pixels_move_together() -> None:
    # Columns vary together and rows do not: the mask of a pixel must be its column.
    generator = torch.Generator().manual_seed(0)
    columns = torch.randint(0, 256, (400, 1, 1, 5), generator=generator, dtype=torch.uint8)
    images = ImageSet(columns.expand(400, 1, 4, 5).contiguous())
    machine = make_machine("pca_local", images)
    alpha, sigma = (torch.tensor([value]) for value in scalars(0.5))
    reach = rearrange(machine._reach(images, alpha, sigma), "(h w) (i j) -> h w i j", h=4, i=4)
    looked_at = reach >= 0.3
    expected = torch.eye(5, dtype=torch.bool)[None, :, None].expand(4, 5, 4, 5)
    assert torch.equal(looked_at, expected)


def test_patch_composite_at_one_pixel_is_local() -> None:
    images = random_images(12, 3, 6, 5)
    x, times = noisy(images, 2, 0.3)
    composite, local = (
        make_machine(kind, images, size=1)(x, times) for kind in ("patch_composite", "local")
    )
    torch.testing.assert_close(composite, local, atol=1e-5, rtol=1e-4)


def test_patch_composite_is_what_the_patches_say_on_average() -> None:
    images, t, r = random_images(7, 1, 5, 5), 0.4, 1
    x, times = noisy(images, 1, t)
    alpha, sigma = scalars(t)
    y, query = to_float(images.pixels)[:, 0].double(), x[0, 0].double()
    total, count = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5, 5)
    for row, column in itertools.product(range(5), repeat=2):
        part = (slice(max(0, row - r), row + r + 1), slice(max(0, column - r), column + r + 1))
        distances = (query[part] - alpha * y[(slice(None), *part)]).square().sum(dim=(1, 2))
        weights = (-distances / (2 * sigma**2)).softmax(dim=0)
        total[part] += torch.einsum("n,nij->ij", weights, y[(slice(None), *part)])
        count[part] += 1
    answer = make_machine("patch_composite", images, size=3, chunk=2)(x, times)[0, 0]
    torch.testing.assert_close(answer.double(), total / count, atol=1e-5, rtol=1e-5)


def test_soft_composites_are_what_soft_patches_of_moved_images_say() -> None:
    """Pixel by pixel: every image in nine places, edges repeated, and mirrored."""
    images, t, width = random_images(4, 1, 4, 5), 0.4, 0.8
    x, times = noisy(images, 1, t)
    alpha, sigma = scalars(t)
    sources = []
    for image in to_float(images.pixels)[:, 0].double():
        for one in (image, image.flip(-1)):
            for dy, dx in itertools.product((-1, 0, 1), repeat=2):
                rows = (torch.arange(4) - dy).clamp(0, 3)
                columns = (torch.arange(5) - dx).clamp(0, 4)
                sources.append(one[rows][:, columns])
    y, query = torch.stack(sources), x[0, 0].double()
    total, mass = torch.zeros(4, 5, dtype=torch.float64), torch.zeros(4, 5)
    at = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij"))
    for row, column in itertools.product(range(4), range(5)):
        squares = (at[0] - row) ** 2 + (at[1] - column) ** 2
        soft = (-squares / (2 * width**2)).exp().double()
        distances = (soft * (query - alpha * y) ** 2).sum(dim=(1, 2))
        weights = (-distances / (2 * sigma**2)).softmax(dim=0)
        total += soft * torch.einsum("n,nij->ij", weights, y)
        mass += soft
    machine = make_machine("patch_composite_soft", images, size=width, symmetries=["flip"])
    torch.testing.assert_close(machine(x, times)[0, 0].double(), total / mass, atol=1e-5, rtol=1e-5)


def test_of_wide_patches_that_do_not_move_a_soft_composite_is_ideal() -> None:
    images = random_images(9, 2, 5, 5)
    x, times = noisy(images, 3, 0.3)
    soft = make_machine("patch_composite_soft", images, size=1e4, shift=0)
    expected = make_machine("ideal", images)(x, times)
    torch.testing.assert_close(soft(x, times), expected, atol=1e-4, rtol=1e-3)
    narrow = make_machine("patch_composite_soft", images, size=0.05, shift=0)(x, times)
    local = make_machine("local", images, size=1)(x, times)
    torch.testing.assert_close(narrow, local, atol=1e-4, rtol=1e-3)


# --- windows, displacements, symmetries, temperature ----------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["local", "equivariant", "boundary"])
def test_flat_windows_at_odd_sides_are_the_hard_ones(kind: str, engine: str) -> None:
    images = random_images(9, 2, 8, 9)
    x, times = noisy(images, 2, 0.3)
    hard, flat = (
        make_machine(kind, images, window=window, engine=engine) for window in ("hard", "flat")
    )
    for size in (1, 3, 5):
        torch.testing.assert_close(flat(x, times, size=float(size)), hard(x, times, size=size))
    between = flat(x, times, size=4.0)
    assert (between - hard(x, times, size=3)).abs().max() > 1e-4
    nearly = flat(x, times, size=4.9999)
    torch.testing.assert_close(nearly, hard(x, times, size=5), atol=2e-3, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("t", [0.1, 0.7])
def test_gaussian_windows_weigh_cells_by_their_distance(engine: str, t: float) -> None:
    images, width = random_images(6, 2, 7, 7), 0.9
    x, times = noisy(images, 1, t)
    alpha, sigma = scalars(t)
    offsets = torch.arange(-2, 3, dtype=torch.float64)
    line = (-(offsets**2) / (2 * width**2)).exp()
    y, query = to_float(images.pixels).double(), x[0].double()
    u = (3, 3)  # all windows around it lie inside
    logs, centres = [], []
    for image, row, column in itertools.product(y, range(2, 5), range(2, 5)):
        a = query[:, u[0] - 2 : u[0] + 3, u[1] - 2 : u[1] + 3]
        b = image[:, row - 2 : row + 3, column - 2 : column + 3]
        distance = ((a - alpha * b).square().sum(dim=0) * torch.outer(line, line)).sum()
        logs.append(-distance / (2 * sigma**2))
        centres.append(image[:, row, column])
    truth = torch.stack(logs).softmax(dim=0) @ torch.stack(centres)
    answer = make_machine("boundary_soft", images, size=width, engine=engine)(x, times)
    torch.testing.assert_close(answer[0, :, 3, 3].double(), truth, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(available() is not None, reason="no compiler")
@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["local", "equivariant", "boundary"]),
    window=st.sampled_from(["hard", "flat", "gaussian"]),
    shift=st.sampled_from([None, 0, 1, 3, 20]),
    t=st.floats(0.02, 1.0),
    h=st.integers(5, 12),
    w=st.integers(5, 12),
)
def test_both_engines_agree_on_every_variation(
    kind: str, window: str, shift: int | None, t: float, h: int, w: int
) -> None:
    images = random_images(19, 2, h, w)
    x, times = noisy(images, 2, t)
    options = {"window": window, "shift": shift if kind == "boundary" else None}
    values = {"hard": [3, 5], "flat": [2.5, 3.0, 4.7], "gaussian": [0.4, 1.0, 0.8]}[window]
    answers = [
        make_machine(kind, images, engine=engine, **options).at_values(x, times, values)
        for engine in ("native", "torch")
    ]
    torch.testing.assert_close(answers[0], answers[1], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_largest_displacement_goes_from_local_to_boundary(engine: str) -> None:
    images = random_images(9, 2, 9, 8)
    x, times = noisy(images, 2, 0.4)
    ask = {"size": 3, "engine": engine}
    at = {
        shift: make_machine("boundary", images, shift=shift, **ask)(x, times)
        for shift in (0, 1, 9, None)
    }
    torch.testing.assert_close(at[0], make_machine("local", images, **ask)(x, times))
    torch.testing.assert_close(at[9], at[None])
    assert (at[1] - at[0]).abs().max() > 1e-3
    assert (at[1] - at[None]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["local", "equivariant", "boundary"])
@pytest.mark.parametrize("symmetry", ["flip", "turns"])
def test_symmetries_add_the_moved_images_to_the_dictionary(kind: str, symmetry: str) -> None:
    images = random_images(7, 2, 8, 8)
    moved = {
        "flip": [images.pixels, images.pixels.flip(-1)],
        "turns": [images.pixels.rot90(turn, dims=(2, 3)) for turn in range(4)],
    }[symmetry]
    x, times = noisy(images, 2, 0.3)
    machine = make_machine(kind, images, size=3, symmetries=[symmetry])
    copied = make_machine(kind, ImageSet(torch.cat(moved)), size=3)
    torch.testing.assert_close(machine(x, times), copied(x, times))
    move = (lambda y: y.flip(-1)) if symmetry == "flip" else (lambda y: y.rot90(1, dims=(-2, -1)))
    torch.testing.assert_close(machine(move(x), times), move(machine(x, times)))


def test_the_best_match_under_a_flip_is_named_in_the_image_as_it_is() -> None:
    images = random_images(5, 1, 8, 8)
    x = to_float(images.pixels[2:3].flip(-1))
    machine = make_machine("local", images, size=3, symmetries=["flip"])
    best = machine.posterior(x, torch.tensor([0.02])).best[0]
    assert (best[0] == 2).all()
    assert torch.equal(best[2], torch.arange(8).flip(0).expand(8, 8))


def test_temperature_divides_the_log_weights() -> None:
    images = random_images(9, 1, 8, 8)
    x, times = noisy(images, 2, 0.5)
    alpha, sigma = scalars(0.5)
    cold = make_machine("local", images, size=1, temperature=0.25)(x, times)
    distances = (x[:, None] - alpha * to_float(images.pixels)).square()[:, :, 0]
    weights = (-distances / (2 * sigma**2) / 0.25).softmax(dim=1)
    truth = torch.einsum("bnhw,nhw->bhw", weights, to_float(images.pixels)[:, 0])
    torch.testing.assert_close(cold[:, 0], truth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "patch_composite_soft", "size": 0.0}, "width 0.0 of the patch_composite_soft"),
        ({"kind": "patch_composite_soft", "shift": -2}, "shift -2 is a largest displacement"),
        ({"kind": "pca_local", "size": 1.5}, "threshold 1.5 is not a share"),
        ({"kind": "smoothed", "size": -0.1}, "smoothing -0.1 of the smoothed machine is below 0"),
        ({"kind": "tempered", "size": 0.0}, "temperature 0.0 is not above 0"),
        ({"kind": "patch_composite", "size": 4}, "patch size 4 is not a positive odd number"),
        ({"kind": "boundary_soft", "size": 0.0}, "width 0.0 of a Gaussian window"),
        ({"kind": "boundary", "window": "flat", "size": 0.5}, "width 0.5 of a flat window"),
        ({"kind": "equivariant_soft", "size": 4.0}, "too large for the equivariant machine"),
        ({"kind": "equivariant", "size": 3, "shift": 1}, "only `boundary` has a largest"),
        ({"kind": "boundary", "size": 3, "shift": -1}, "shift -1"),
        ({"kind": "boundary", "size": 3, "symmetries": ["mirror"]}, "unknown symmetries"),
        ({"kind": "boundary", "size": 3, "temperature": 0.0}, "temperature is 0.0"),
        ({"kind": "ideal", "shift": 1}, "the ideal machine has no patches"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_machine(images=random_images(), **options)


def test_turns_need_square_images() -> None:
    with pytest.raises(InputError, match="need square images, not 8 x 7"):
        make_machine("boundary", random_images(3, 1, 8, 7), size=3, symmetries=["turns"])


def test_wiener_on_real_digits_denoises_better_than_the_mean() -> None:
    images, held_out = (load_images("digits", size=12, split=split) for split in ("train", "test"))
    x0 = to_float(held_out.pixels[:32])
    x, times = noisy(held_out, 32, 0.5)
    answer = make_machine("wiener", images)(x, times)
    mean = to_float(images.pixels).mean(dim=0)
    assert (answer - x0).square().mean() < 0.6 * (mean - x0).square().mean()
