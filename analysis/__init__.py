"""What analyze.py does: a network and its images to results, a report, and W&B."""

from els.aliases import alias

alias(__name__)
