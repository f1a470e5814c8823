"""Closed-form theories of convolutional diffusion models (Kamb & Ganguli, ICML 2025).

What a script or a notebook needs is here, and is imported when it is first asked for:
`load_denoiser`, `load_images`, `make_machine`, `fit_scales`, `Scales`, `Starts`, `sample`, `ddim`,
`seeded_noise`, `agreement`, `summarise`, `probe` and `Results`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from els.agreement import agreement, summarise
    from els.analysis.results import Results
    from els.calibration import Scales, fit_scales
    from els.images import load_images
    from els.machines import make_machine
    from els.models.checkpoints import load_denoiser
    from els.probes import probe
    from els.sampling import Starts, ddim, sample, seeded_noise

__all__ = [
    "Results",
    "Scales",
    "Starts",
    "__version__",
    "agreement",
    "ddim",
    "fit_scales",
    "load_denoiser",
    "load_images",
    "make_machine",
    "probe",
    "sample",
    "seeded_noise",
    "summarise",
]
__version__ = "0.2.0"

_HOMES = {
    "Results": "els.analysis.results",
    "Scales": "els.calibration",
    "Starts": "els.sampling",
    "agreement": "els.agreement",
    "ddim": "els.sampling",
    "fit_scales": "els.calibration",
    "load_denoiser": "els.models.checkpoints",
    "load_images": "els.images",
    "make_machine": "els.machines",
    "probe": "els.probes",
    "sample": "els.sampling",
    "seeded_noise": "els.sampling",
    "summarise": "els.agreement",
}
_HERE = Path(__file__).parent
if not (_HERE / "models").is_dir():  # Windows may check links out as text files: look beside els
    __path__.insert(0, str(_HERE.parent))


def __getattr__(name: str) -> Any:
    """What is public, imported when it is asked for: numbers do without Lightning and W&B."""
    if name not in _HOMES:
        raise AttributeError(f"module 'els' has no attribute '{name}'")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)


class _Package(ModuleType):
    """A package whose functions keep their names: `agreement` is also that of a module."""

    def __setattr__(self, name: str, value: object) -> None:
        """Called by Python with every module below the package, when it has been imported."""
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
