"""Train a network: `python train.py fit --config configs/digits_resnet.yaml` (see --help)."""

from els.console import exit_cleanly
from els.models.cli import main

if __name__ == "__main__":
    with exit_cleanly():
        main()
