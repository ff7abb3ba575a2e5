"""horovodrun without its search for Gloo; run as `python -m` with horovodrun's own arguments.

To learn whether Horovod has Gloo, horovodrun imports every framework in a process of its own,
which takes seconds with TensorFlow. The plan knows that already (`Machine.controllers`).
"""

from __future__ import annotations

from horovod.runner import launch


def main() -> None:
    launch.gloo_built = lambda verbose=False: True
    launch.run_commandline()


if __name__ == "__main__":
    main()
