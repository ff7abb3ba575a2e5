"""The old name of `hvdtools.rank_wrapper`, which saved scripts and manifests run."""
