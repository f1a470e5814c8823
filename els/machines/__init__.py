"""Closed-form denoisers: posterior means over dictionaries of training images and patches."""

from els.machines.base import Machine, Scale
from els.machines.registry import MACHINES, PATCH_KINDS, make_machine

__all__ = ["MACHINES", "PATCH_KINDS", "Machine", "Scale", "make_machine"]
