"""Results as figures, tables, charts and pages: views, and what draws them."""
