"""The doctor for several hosts: each is asked for its facts, and the odd one out is named."""
