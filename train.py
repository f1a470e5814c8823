"""Train a network: `python train.py fit --config digits_resnet` (see --help)."""

from els.models.cli import command

if __name__ == "__main__":
    command()
