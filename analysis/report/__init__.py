"""Results as figures, tables, charts and pages."""
