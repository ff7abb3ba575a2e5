"""Reports whether a run can work here: probes -> facts -> rules -> findings -> a screen or JSON."""
