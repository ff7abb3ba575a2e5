"""The all-reduces that the doctor runs, and the search for the host that breaks one."""
