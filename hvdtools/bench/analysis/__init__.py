"""From results to numbers: `summary.analyze` computes everything that a renderer shows."""
