"""Analyse trained networks: `python analyze.py --checkpoint runs/digits/checkpoints/last.ckpt`."""

from els.analysis.commands import command

if __name__ == "__main__":
    command()
