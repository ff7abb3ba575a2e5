"""Says whether a run can work here: probes -> `Facts` -> findings -> a screen or JSON."""
