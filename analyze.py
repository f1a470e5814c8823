"""Compare a trained network with closed-form machines: `python analyze.py --checkpoint ...`."""

from els.analysis.commands import command, main

__all__ = ["main"]

if __name__ == "__main__":
    command()
