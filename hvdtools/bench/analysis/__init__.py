"""From results to numbers: medians, intervals, ratios, comparisons."""
