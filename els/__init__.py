"""Closed-form theories of convolutional diffusion models (Kamb & Ganguli, ICML 2025)."""
