"""Posteriors over training patches in compiled code, for many patch sizes in one pass.

`native.cpp` has a plain C interface and none of torch's headers, so that it compiles in seconds
with whatever C++ compiler there is. It is built at first use into a cache folder, `$ELS_CACHE` or
else `~/.cache/els`, under a name that says all that the machine code depends on, see
`els.engines.compiled`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from els.engines import compiled
from els.engines.dictionary import RULES
from els.engines.posterior import Details, Posterior, named
from els.engines.query import PatchQuery, refuses_numbers
from els.files import cache_folder
from els.work import tick

MOST_CHANNELS = 4

_LOG = logging.getLogger(__name__)
# All compiled code for the CPU is one library; the last two are for `strata_code`.
_SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("native.cpp", "sorting.cpp", "strata.cpp")
)
_SHARED = Path(__file__).with_name("lanes.h")
# Sums keep their order (no -ffast-math); without NaN and -0 a maximum is one instruction.
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
          "-ffinite-math-only", "-fno-signed-zeros", "-shared", "-fPIC", "-pthread")  # fmt: skip
# Tried in turn: not every compiler knows the machine it runs on.
_TARGETS = ("-march=native", "-mcpu=native", None)
# (query place, training patch) pairs per call, about a second: Ctrl-C is heard between calls.
_PAIRS_PER_CALL = 1 << 31
_IMAGES_PER_STEP = 16
# At a smaller alpha the images are lost in float32's rounding of the query; zero has no inverse.
_LEAST_ALPHA = 1e-6
# The log-weight of no patch at all: finite in the compiled code's float64, -inf in float32.
_NO_PATCH = -1e300


class NativeUnavailableError(RuntimeError):
    """The compiled engine does not work here; the message says why."""


class _Job(ctypes.Structure):
    """`Job` in native.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in
          ("x", "pixels", "alpha", "sigma", "radii", "profiles", "wanted", "peak", "mass",
           "moment", "square", "best", "top", "second_peak", "second", "energy")),
        *((name, ctypes.c_int64) for name in ("queries", "images", "first_image")),
        *((name, ctypes.c_int32) for name in
          ("channels", "height", "width", "sizes", "kind", "threads", "shift_rows",
           "shift_columns")),
    ]  # fmt: skip


def available() -> str | None:
    """None if the compiled engine works here, else the reason why not. Builds it at first use."""
    try:
        library()
    except NativeUnavailableError as error:
        return str(error)
    return None


@functools.cache
def missing() -> str | None:
    """`available`, looked up once."""
    return available()


def refuses(query: PatchQuery) -> str | None:
    """Why this engine cannot take a query here; None when it can."""
    if query.x.device.type != "cpu":
        return f"the queries are on {query.x.device}"
    return refuses_numbers(query.x, MOST_CHANNELS) or missing()


def posteriors(
    query: PatchQuery,
    *,
    threads: int | None = None,
    shifts: tuple[int, int] | None = None,
) -> list[Posterior]:
    """A float32 posterior for each size, in the order given, from one pass; see `PatchQuery`.

    Args:
        query: what is asked; x has 1 to 4 channels and is finite.
        threads: threads to use; default: as many as PyTorch uses. Neither it nor the batch changes
            the answer beyond rounding.
        shifts: the largest displacements along rows and along columns, for `boundary` alone;
            default: that of the query. Work falls with them.

    Raises:
        NativeUnavailableError: when there is no compiled engine (`available` says so beforehand).
        InputError: see `PatchQuery.check`.
    """
    code = library()
    query.check("native", most_channels=MOST_CHANNELS)
    order = sorted(range(len(query.sizes)), key=lambda i: query.sizes[i] // 2)
    memory = _memory(query, order)
    b, c, h, w = query.x.shape
    largest = max(h, w) if query.shift is None else query.shift
    down, across = shifts or (largest, largest)
    job = _Job(
        queries=b,
        channels=c,
        height=h,
        width=w,
        sizes=len(order),
        kind=RULES.index(query.rule),
        threads=threads or torch.get_num_threads(),
        shift_rows=down,
        shift_columns=across,
        **{name: tensor.data_ptr() for name, tensor in memory.items()},
    )
    if b:
        pairs = b * h * w * (1 if query.rule == "local" else h * w)
        _visit(code, job, query.pixels, pairs=pairs)
    return [_posterior(memory, order.index(i), query.x.device) for i in range(len(order))]


def _memory(query: PatchQuery, order: list[int]) -> dict[str, Tensor]:
    """What the compiled code reads and writes, by its name in `Job`; sizes in the given order."""
    radii = [query.sizes[i] // 2 for i in order]
    x, alpha, sigma = query.x, query.alpha, query.sigma
    b, c, h, w = x.shape
    memory = {
        "x": x.detach().to("cpu", torch.float32).contiguous(),
        "alpha": alpha.detach().to("cpu", torch.float64).clamp(min=_LEAST_ALPHA).contiguous(),
        "sigma": sigma.detach().to("cpu", torch.float64).contiguous(),
        "radii": torch.tensor(radii, dtype=torch.int32),
        "peak": torch.full((b, len(radii), 1, h, w), _NO_PATCH, dtype=torch.float64),
        "mass": torch.zeros(b, len(radii), 1, h, w, dtype=torch.float64),
        "moment": torch.zeros(b, len(radii), c, h, w, dtype=torch.float64),
    }
    if query.profiles is not None:
        profiles = [query.profiles[i] for i in order]
        width = radii[-1] + 1
        memory["profiles"] = torch.tensor([[*p, *[0.0] * (width - len(p))] for p in profiles])
    if query.wanted is not None:
        memory["wanted"] = query.wanted.to("cpu", torch.uint8).contiguous()
    if query.details:
        memory["square"] = torch.zeros_like(memory["mass"])
        memory["top"] = torch.zeros_like(memory["mass"])
        memory["energy"] = torch.zeros_like(memory["mass"])
        memory["second_peak"] = memory["peak"].clone()
        for name in ("best", "second"):
            memory[name] = torch.zeros_like(memory["mass"], dtype=torch.int64)
    return memory


def _posterior(memory: dict[str, Tensor], size: int, device: torch.device) -> Posterior:
    """What the compiled code has left in memory for one of the sizes."""

    def of(name: str) -> Tensor:
        return memory[name][:, size].to(device, torch.float32)

    details = None
    if "square" in memory:
        best, second = (named(memory[name][:, size].to(device)) for name in ("best", "second"))
        details = Details(of("square"), best, of("top"), second, of("second_peak"), of("energy"))
    return Posterior(of("peak"), of("mass"), of("moment"), details)


def _visit(code: ctypes.CDLL, job: _Job, pixels: Tensor, *, pairs: int) -> None:
    """Merge all images into the job's sums, `pairs` pairs of places for each image."""
    step = _IMAGES_PER_STEP * max(job.threads, _PAIRS_PER_CALL // (pairs * _IMAGES_PER_STEP))
    for first in range(0, len(pixels), step):
        images = pixels[first : first + step].to("cpu").contiguous()
        job.pixels, job.images, job.first_image = images.data_ptr(), len(images), first
        if code.els_patch_posteriors(ctypes.byref(job)):
            raise MemoryError("the compiled engine ran out of memory")
        tick(job.queries * len(images) / len(pixels))


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled code, built at first use.

    Raises:
        NativeUnavailableError: when it cannot be built or loaded here.
    """
    compiler = _compiler()
    try:
        path = compiled.own_folder() / f"native-{_fingerprint(compiler)}.so"
        if not compiled.is_whole(path):
            _LOG.warning("compiling the CPU engine, once for this machine (about 20 s) ...")
            compiled.store(path, lambda built: compile_library(_SOURCES, built, compiler))
        return _load(path)
    except OSError as error:
        raise NativeUnavailableError(
            f"the compiled engine cannot be kept in {cache_folder()} and loaded "
            f"from there ({error}); set ELS_CACHE to a folder of your own"
        ) from error


def _load(path: Path) -> ctypes.CDLL:
    code = compiled.load(path)
    code.els_patch_posteriors.argtypes = [ctypes.POINTER(_Job)]
    code.els_patch_posteriors.restype = ctypes.c_int
    return code


def _compiler() -> list[str]:
    """The C++ compiler's command: `$CXX`, or the first of the usual names that is there."""
    wanted = os.environ.get("CXX")
    for command in [wanted] if wanted else ["c++", "g++", "clang++"]:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise NativeUnavailableError(f"CXX is {command!r}, no command: {error}") from error
        if words and shutil.which(words[0]):
            return words
    if wanted:
        raise NativeUnavailableError(f"the C++ compiler '{wanted}' that CXX names is not there")
    raise NativeUnavailableError("no C++ compiler (c++, g++ or clang++) is on the PATH")


def _fingerprint(compiler: list[str]) -> str:
    """A hash of all that the machine code depends on: source, flags, compiler and processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    parts = (
        *(source.read_bytes() for source in (*_SOURCES, _SHARED)),
        repr((_FLAGS, _TARGETS, compiler)).encode(),
        version,
        _processor(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> bytes:
    """Model and instruction sets, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return " ".join(platform.uname()[4:]).encode()
    known = (b"model name", b"flags", b"Features", b"CPU part")
    told = {line.partition(b"\t")[0]: line for line in lines if line.startswith(known)}
    return b"\n".join(told.values()) or platform.machine().encode()


def _is_about(target: str, message: str) -> bool:
    """Whether a compiler's message is of a target that it does not know."""
    return target.partition("=")[0] in message or "target cpu" in message.lower()


def compile_library(
    sources: Sequence[Path], built: Path, compiler: list[str] | None = None
) -> None:
    """Compile C++ for this machine, with the engine's flags, into the shared library `built`.

    Raises:
        NativeUnavailableError: when there is no compiler, or it fails.
    """
    compiler = compiler or _compiler()
    for target in _TARGETS:
        flags = [*_FLAGS, target] if target else _FLAGS
        command = [*compiler, *flags, "-o", str(built), *map(str, sources)]
        result = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if result.returncode == 0:
            return
        if target and not _is_about(target, result.stderr):
            break  # another target would fail alike
    message = (result.stderr.strip() or "no message").splitlines()[0]
    names = " and ".join(source.name for source in sources)
    raise NativeUnavailableError(f"{' '.join(compiler)} does not compile {names} ({message})")
