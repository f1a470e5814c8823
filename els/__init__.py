"""Closed-form theories of convolutional diffusion models (Kamb & Ganguli, ICML 2025)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from els.models.checkpoints import load_denoiser

__all__ = ["__version__", "load_denoiser"]
__version__ = "0.2.0"

_HERE = Path(__file__).parent
if not (_HERE / "models").is_dir():  # Windows may check links out as text files: look beside els
    __path__.insert(0, str(_HERE.parent))


def __getattr__(name: str) -> Any:
    """`load_denoiser`, imported when it is asked for: the theory does without Lightning and W&B."""
    if name == "load_denoiser":
        from els.models.checkpoints import load_denoiser

        return load_denoiser
    raise AttributeError(f"module 'els' has no attribute '{name}'")
