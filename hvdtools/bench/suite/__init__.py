"""What is measured: a TOML file -> a suite -> cases."""
