"""Any network behind the one contract: what it predicts, over which noise, in which range.

A network of somebody else is a function of noisy images y = a x_0 + b n in the range that it was
trained on, and of what it is told of their noise: a step, a time or a sigma. With images of range
[m - s, m + s], an image of ours, x = alpha x_0 + sigma eps, is one of theirs where
a s / b = alpha / sigma: y = (b / sigma) x + a m.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from types import CodeType, FunctionType, MethodType
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from els.denoiser import Labels, Times, as_labels, as_times
from els.errors import InputError, reason
from els.sampling import Sampler
from els.schedule import COSINE, CosineSchedule

Range = tuple[float, float]
Shape = tuple[int, int, int]
Coefficient = Callable[[Tensor], Tensor]
Function = Callable[..., Tensor]
_HALVINGS = 60  # of the interval of times in which one is looked for


class Noise(Protocol):
    """How noisy the images of a network are, and how it is told."""

    def at(self, log_ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What it is told of images with log(a / b) (b,), and their a and b, each (b,)."""
        ...

    @property
    def identity(self) -> object:
        """Plain data that tells it from other noise."""
        ...

    @property
    def words(self) -> str:
        """What it is told, for people."""
        ...


class Steps:
    """Discrete steps with a^2 + b^2 = 1; the network is told the nearest, a whole number.

    Args:
        alpha_bar: a^2 of its steps (n,), falling.

    Raises:
        InputError: when it is something else.
    """

    def __init__(self, alpha_bar: Tensor) -> None:
        levels = torch.as_tensor(alpha_bar).detach().double().cpu()
        if levels.ndim != 1 or len(levels) < 2:
            raise InputError(
                f"alpha_bar has shape {tuple(levels.shape)}; it must be (n,), one for each step"
            )
        if not ((levels > 0) & (levels < 1)).all() or not (levels.diff() < 0).all():
            raise InputError(
                f"alpha_bar goes from {levels[0]:g} to {levels[-1]:g}; it must fall at every step, "
                "below 1 and above 0 (the cumulative product of 1 - beta)"
            )
        self.alpha_bar = levels
        self.log_ratios = (levels.log() - (-levels).log1p()) / 2

    def at(self, log_ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Noise.at`."""
        r, known = -log_ratio, -self.log_ratios.to(log_ratio.device)
        after = torch.searchsorted(known, r).clamp(1, len(known) - 1)
        nearer = (r - known[after - 1]) < (known[after] - r)
        a, b = torch.sigmoid(2 * log_ratio).sqrt(), torch.sigmoid(-2 * log_ratio).sqrt()
        return torch.where(nearer, after - 1, after), a, b

    @property
    def identity(self) -> object:
        """See `Noise.identity`."""
        return ["steps", self.alpha_bar.tolist()]

    @property
    def words(self) -> str:
        """See `Noise.words`."""
        return f"{len(self.alpha_bar)} steps"


@dataclass(frozen=True)
class Continuous:
    """Times in [0, 1], of which 0 is without noise; the network is told the time.

    Attributes:
        alpha: a(t), falling.
        sigma: b(t), growing.

    Raises:
        InputError: when they are not functions of tensors of times, or a / b does not fall.
    """

    alpha: Coefficient
    sigma: Coefficient

    def __post_init__(self) -> None:
        t = torch.linspace(0, 1, 33, dtype=torch.float64)
        values = []
        for name, function in (("alpha", self.alpha), ("sigma", self.sigma)):
            try:
                values.append(_coefficient(function, t))
            except Exception as error:  # it is the user's own
                raise InputError(
                    f"{name} cannot be asked for the times of a tensor (b,): "
                    f"{reason(error, named=True)}; write it with functions of torch"
                ) from error
        a, b = values
        # It may fall below every number at t = 0, where there is no noise, and at t = 1.
        ratio = (a / b)[1:-1]
        if not (a[1:-1] > 0).all() or not (b[1:-1] > 0).all() or not (ratio.diff() < 0).all():
            raise InputError(
                f"alpha goes from {a[0]:g} to {a[-1]:g} and sigma from {b[0]:g} to {b[-1]:g}; both "
                "must be above 0 between t = 0 (no noise) and t = 1 (noise), and alpha / sigma fall"
            )

    def at(self, log_ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Noise.at`; beyond its ends the network is told the end."""
        low, high = torch.zeros_like(log_ratio), torch.ones_like(log_ratio)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            cleaner = self._ratio(middle) > log_ratio
            low, high = torch.where(cleaner, middle, low), torch.where(cleaner, high, middle)
        b = _coefficient(self.sigma, high)
        return high, log_ratio.exp() * b, b

    def _ratio(self, t: Tensor) -> Tensor:
        return _coefficient(self.alpha, t).log() - _coefficient(self.sigma, t).log()

    @property
    def identity(self) -> object:
        """See `Noise.identity`: its values at some times."""
        t = torch.linspace(0, 1, 33, dtype=torch.float64)
        return ["times", *(_coefficient(of, t).tolist() for of in (self.alpha, self.sigma))]

    @property
    def words(self) -> str:
        """See `Noise.words`."""
        return "times"


def _coefficient(function: Coefficient, t: Tensor) -> Tensor:
    """The values (b,) of alpha or sigma at times t (b,), float64."""
    return torch.as_tensor(function(t)).to(t).expand_as(t)


class Sigmas:
    """Images with noise added, a = 1; the network is told its deviation b."""

    identity: object = "sigma"
    words = "sigma"

    def at(self, log_ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Noise.at`."""
        b = (-log_ratio).exp()
        return b, torch.ones_like(b), b


class Adapted(Sampler):
    """denoiser(x, t, label) -> x0_hat from somebody else's network; see the functions below.

    Attributes:
        function: the network as it is called.
        prediction: "eps", "v" or "x0".
        noise: that of the images it takes.
        image_range: the values of black and white that it was trained on.
        num_classes: number of classes, or None for an unconditional network.
        image_shape: (c, h, w), or None where nobody said.
        schedule: what our t means.

    Raises:
        InputError: when an argument has no meaning.
    """

    schedule: CosineSchedule = COSINE

    def __init__(
        self,
        function: Function,
        *,
        prediction: str,
        noise: Noise,
        image_range: Range = (-1.0, 1.0),
        num_classes: int | None = None,
        image_shape: Shape | None = None,
    ) -> None:
        if not callable(function):
            raise InputError(f"the network is a {type(function).__name__}; give what can be called")
        low, high = map(float, image_range)
        if not low < high:
            raise InputError(f"image_range is {image_range}; give black and white, such as (-1, 1)")
        if image_shape is not None:
            if len(image_shape) != 3 or not all(isinstance(n, int) and n > 0 for n in image_shape):
                raise InputError(f"image_shape is {image_shape}; give (channels, height, width)")
            channels, height, width = image_shape
            image_shape = channels, height, width  # a list, too
        if num_classes is not None and not (isinstance(num_classes, int) and num_classes > 0):
            raise InputError(f"num_classes is {num_classes}; give at least 1, or None")
        self.function = function
        self.prediction = prediction
        self.noise = noise
        self.image_range = low, high
        self.num_classes = num_classes
        self.image_shape = image_shape

    def __repr__(self) -> str:
        shape = "" if self.image_shape is None else f", {' x '.join(map(str, self.image_shape))}"
        return f"Adapted({self.name}, predicts {self.prediction}{shape})"

    @property
    def name(self) -> str:
        """Of the module or function."""
        named = getattr(self.function, "__name__", type(self.function).__name__)
        return named if named != "<lambda>" else "function"

    @cached_property
    def modules(self) -> list[nn.Module]:
        """The modules that the function holds: itself, or what it can be seen to call."""
        return [one for one in reached(self.function) if isinstance(one, nn.Module)]

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU where none are seen."""
        tensors = (one for module in self.modules for one in module.state_dict().values())
        first = next(tensors, None)
        return torch.device("cpu") if first is None else first.device

    @property
    def identity(self) -> object:
        """Plain data that tells it from others: how it is read, its code, and its weights."""
        told = [self.prediction, self.noise.identity, list(self.image_range), self.num_classes]
        return ["adapted", *told, self.schedule.identity, digest_of(self.function)]

    def __call__(self, x: Tensor, t: Times, label: Labels = None) -> Tensor:
        """x0_hat (b c h w); see `els.denoiser.Denoiser`. One t or label may stand for all images.

        Raises:
            InputError: when a label is given to an unconditional network, or the function fails or
                answers with something else than images of the same shape.
        """
        t, label = as_times(t, x).double(), as_labels(label, x)
        if label is not None and self.num_classes is None:
            raise InputError("a label was given, but this network is not class-conditional")
        low, high = self.image_range
        middle, half = (low + high) / 2, (high - low) / 2
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        told, a, b = self.noise.at((alpha / (sigma * half)).log())
        a, b, scale, alpha, sigma = (
            rearrange(one, "b -> b 1 1 1").to(x) for one in (a, b, b / sigma, alpha, sigma)
        )
        y = scale * x + a * middle
        answer = self._answer(y, told if not told.is_floating_point() else told.to(x), label)
        if self.prediction == "eps":
            return (x - sigma * answer) / alpha
        theirs = answer if self.prediction == "x0" else (a * y - b * answer) / (a**2 + b**2)
        return (theirs - middle) / half

    def _answer(self, y: Tensor, told: Tensor, label: Tensor | None) -> Tensor:
        try:
            found = self.function(y, told) if label is None else self.function(y, told, label)
        except Exception as error:  # it is the user's own
            why = reason(error, named=True, length=200)
            raise InputError(f"the function '{self.name}' of the network failed: {why}") from error
        if not isinstance(found, Tensor) or found.shape != y.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the function '{self.name}' answered {shape} to images {tuple(y.shape)}; it must "
                "answer with a tensor of their shape"
            )
        return found.to(y)


def from_eps(
    function: Function,
    *,
    alpha_bar: Tensor | None = None,
    alpha: Coefficient | None = None,
    sigma: Coefficient | None = None,
    image_range: Range = (-1.0, 1.0),
    num_classes: int | None = None,
    image_shape: Shape | None = None,
) -> Adapted:
    """A network that predicts the noise n of y = a x_0 + b n.

    Args:
        function: a module or a function, called as `function(y, step)` or, with labels (b,), as
            `function(y, step, label)`; y (b c h w), step (b,) whole numbers from 0 with
            `alpha_bar`, or times with `alpha` and `sigma`; it answers (b c h w).
        alpha_bar: a^2 of its steps (n,), falling.
        alpha: in its place, a(t) of times t (b,) in [0, 1], falling.
        sigma: b(t), growing; it goes with `alpha`.
        image_range: the values of black and white that it was trained on.
        num_classes: number of classes, or None for an unconditional network.
        image_shape: (c, h, w) of its images, which sampling and analyses need.

    Raises:
        InputError: when the noise is not said once, or an argument has no meaning.

    Example:
        >>> levels = torch.linspace(0.99, 0.01, 10)
        >>> network = from_eps(lambda y, step: 0 * y, alpha_bar=levels, image_shape=(1, 4, 4))
        >>> network.sample(2, steps=3).shape
        torch.Size([2, 1, 4, 4])
    """
    return Adapted(
        function,
        prediction="eps",
        noise=_noise(alpha_bar, alpha, sigma),
        image_range=image_range,
        num_classes=num_classes,
        image_shape=image_shape,
    )


def from_v(
    function: Function,
    *,
    alpha_bar: Tensor | None = None,
    alpha: Coefficient | None = None,
    sigma: Coefficient | None = None,
    image_range: Range = (-1.0, 1.0),
    num_classes: int | None = None,
    image_shape: Shape | None = None,
) -> Adapted:
    """A network that predicts v = a n - b x_0 (Salimans & Ho 2022); arguments as `from_eps`.

    Raises:
        InputError: as `from_eps`.
    """
    return Adapted(
        function,
        prediction="v",
        noise=_noise(alpha_bar, alpha, sigma),
        image_range=image_range,
        num_classes=num_classes,
        image_shape=image_shape,
    )


def from_x0(
    function: Function,
    *,
    alpha_bar: Tensor | None = None,
    alpha: Coefficient | None = None,
    sigma: Coefficient | None = None,
    image_range: Range = (-1.0, 1.0),
    num_classes: int | None = None,
    image_shape: Shape | None = None,
) -> Adapted:
    """A network that predicts the clean image x_0; arguments as `from_eps`.

    Raises:
        InputError: as `from_eps`.
    """
    return Adapted(
        function,
        prediction="x0",
        noise=_noise(alpha_bar, alpha, sigma),
        image_range=image_range,
        num_classes=num_classes,
        image_shape=image_shape,
    )


def from_edm(
    function: Function,
    *,
    image_range: Range = (-1.0, 1.0),
    num_classes: int | None = None,
    image_shape: Shape | None = None,
) -> Adapted:
    """A network D(y; sigma) of EDM (Karras et al. 2022), y = x_0 + sigma n.

    Args:
        function: called as `function(y, sigma)` or `function(y, sigma, label)`, sigma (b,); it
            answers with the clean images (b c h w).
        image_range, num_classes, image_shape: as of `from_eps`.

    Raises:
        InputError: when an argument has no meaning.
    """
    return Adapted(
        function,
        prediction="x0",
        noise=Sigmas(),
        image_range=image_range,
        num_classes=num_classes,
        image_shape=image_shape,
    )


def _noise(alpha_bar: Tensor | None, alpha: Coefficient | None, sigma: Coefficient | None) -> Noise:
    if alpha_bar is not None and alpha is None and sigma is None:
        return Steps(alpha_bar)
    if alpha_bar is None and alpha is not None and sigma is not None:
        return Continuous(alpha, sigma)
    raise InputError(
        "the noise of the network must be said once: give alpha_bar=, or alpha= and sigma="
    )


# --- what a function depends on -----------------------------------------------------------------


def digest_of(function: Function) -> str:
    """SHA-256 of the code and of the weights and numbers that a function can be seen to use."""
    digest = hashlib.sha256()
    for one in reached(function):
        if isinstance(one, nn.Module):
            kinds = {type(part) for part in one.modules()}
            theirs = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
            digest.update("".join(sorted(map(_source, theirs))).encode())
            digest.update(repr(one).encode())  # names what is not in the weights, as padding
            for name, value in one.state_dict().items():
                digest.update(name.encode())
                if isinstance(value, Tensor):
                    _add(digest, value)
        elif isinstance(one, Tensor):
            _add(digest, one)
        elif isinstance(one, np.ndarray):
            digest.update(f"{one.dtype} {one.shape}".encode() + one.tobytes())
        else:
            digest.update((_source(one) if callable(one) else repr(one)).encode())
    return digest.hexdigest()


def reached(function: object) -> list[object]:
    """The modules, tensors, functions and plain values that a function holds, itself first.

    Seen are what a function encloses, its defaults, the globals that its code names, and what
    partial functions, methods and objects with attributes hold; functions of other files than its
    own are not looked into.
    """
    home, found, seen = _home(function), [], set()
    waiting = [function]
    while waiting:
        one = waiting.pop()
        plain = one is None or isinstance(one, bool | int | float | str)
        # Equal numbers may be one object, and count wherever they stand.
        if not plain and id(one) in seen:
            continue
        seen.add(id(one))
        if plain or isinstance(one, nn.Module | Tensor | np.ndarray | FunctionType):
            found.append(one)
        if not plain and not isinstance(one, nn.Module | Tensor | np.ndarray):
            waiting += reversed(list(_held(one, home)))
    return found


def _held(one: object, home: str | None) -> Iterator[object]:
    """What an object holds, one level deep."""
    if isinstance(one, partial):
        yield from (one.func, *one.args, one.keywords)
    elif isinstance(one, MethodType):
        yield from (one.__self__, one.__func__)
    elif isinstance(one, FunctionType):
        if one.__module__ != home:
            return
        cells = (cell for cell in one.__closure__ or () if not _is_empty(cell))
        yield from (cell.cell_contents for cell in cells)
        yield from (*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values())
        yield from (one.__globals__.get(name) for name in _names(one.__code__))
    elif isinstance(one, list | tuple):
        yield from one
    elif isinstance(one, dict):
        yield from (part for item in one.items() for part in item)
    elif type(one).__module__ == home and not isinstance(one, type):
        yield from (*getattr(one, "__dict__", {}).values(), vars(type(one)).get("__call__"))


def _names(code: CodeType) -> Iterator[str]:
    """The globals that code names, also in the functions that it makes."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _is_empty(cell: object) -> bool:
    try:
        _ = cell.cell_contents  # type: ignore[attr-defined]
    except ValueError:
        return True
    return False


def _home(function: object) -> str | None:
    """The name of the file's module in which a function was written."""
    inside = function.func if isinstance(function, partial) else function
    found: str | None = getattr(inside, "__module__", None)
    return found


def _source(one: object) -> str:
    """The text of a class or function, or its name where there is none."""
    try:
        return inspect.getsource(one)  # type: ignore[arg-type]
    except (OSError, TypeError):
        code = getattr(one, "__code__", None)
        name = getattr(one, "__qualname__", type(one).__qualname__)
        return name if code is None else f"{name} {code.co_code.hex()} {code.co_names}"


def _add(digest: hashlib._Hash, value: Tensor) -> None:
    values = value.detach().cpu().contiguous().flatten()
    digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
    digest.update(values.view(torch.uint8).numpy().data)
