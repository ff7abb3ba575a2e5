"""The probes: what is on a host, as facts. They judge nothing and import no framework here."""
