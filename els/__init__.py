"""Closed-form theories of convolutional diffusion models (Kamb & Ganguli, ICML 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from els.models.checkpoints import load_denoiser

__all__ = ["load_denoiser"]


def __getattr__(name: str) -> Any:
    """`load_denoiser`, imported when it is asked for: the theory does without Lightning and W&B."""
    if name == "load_denoiser":
        from els.models.checkpoints import load_denoiser

        return load_denoiser
    raise AttributeError(f"module 'els' has no attribute '{name}'")
