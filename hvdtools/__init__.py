"""hvdtools: Horovod on today's frameworks, launchers and clusters.

Importing this package imports no framework; each adapter (`hvdtools.torch`)
imports its own.
"""

from hvdtools.core.errors import HvdtoolsError

__version__ = "0.2.0"
__all__ = ["HvdtoolsError", "__version__"]
