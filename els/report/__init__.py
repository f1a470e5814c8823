"""Saved results to figures, tables and pages."""
