"""Closed-form denoisers: posterior means over dictionaries of training patches."""

from els.machines.machine import MACHINES, Machine, make_machine

__all__ = ["MACHINES", "Machine", "make_machine"]
