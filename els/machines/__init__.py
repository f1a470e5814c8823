"""Closed-form denoisers: posterior means over dictionaries of training images and patches."""

from els.machines.machine import Dial, Machine
from els.machines.make import MACHINES, make_machine

__all__ = ["MACHINES", "Dial", "Machine", "make_machine"]
