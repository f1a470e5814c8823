"""All of W&B's side of an analysis."""
