"""The scaling benchmark: suite -> cases -> runs -> results -> report."""
