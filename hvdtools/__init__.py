"""hvdtools: Horovod on today's frameworks, launchers and clusters.

Importing this package imports no framework; each adapter (`hvdtools.torch`)
imports its own.
"""

__version__ = "0.2.0"
