"""Renders a `RunSummary`: on the terminal, as a page and as CSV."""
