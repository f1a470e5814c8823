"""Networks, their training, and what brings a trained one back."""

from els.aliases import alias

alias(__name__)
