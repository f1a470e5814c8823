"""The arithmetic under the patch machines: posteriors over training patches."""
