"""Compare a trained network with closed-form machines: `python analyze.py --checkpoint ...`."""

from els.analysis.commands import command

if __name__ == "__main__":
    command()
