from typing import Final
from pybuild.trace.scene import Scene

NAMES: Final = ()


def scene(*a):
    raise NotImplementedError
