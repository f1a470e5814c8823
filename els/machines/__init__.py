"""Closed-form denoisers: posterior means over dictionaries of training images and patches."""

from els.machines.base import Machine, MachineOptions, Scale
from els.machines.registry import MACHINES, make_machine, with_paper_name

__all__ = ["MACHINES", "Machine", "MachineOptions", "Scale", "make_machine", "with_paper_name"]
