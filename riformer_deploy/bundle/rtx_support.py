"""The GPUs that TensorRT-RTX runs on, by its version: those that it names, which are not all from one on.

A version says this only where it refuses a GPU. One that is not listed here is asked on the machine itself,
by preflight.
"""

from __future__ import annotations

from dataclasses import dataclass


def major_minor(text: str) -> tuple[int, int]:
    """Both numbers of a compute capability or a CUDA version, such as ``8.9``, to compare by."""
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


@dataclass(frozen=True, kw_only=True)
class RtxSupport:
    """Compute capabilities of one version.

    Attributes:
        targets: What engines run on that were built without naming any.
        later_than: They run on every later one than this, too.
        named: Those that can be named when building.
    """

    targets: tuple[str, ...]
    later_than: str
    named: tuple[str, ...]

    def runs_by_default(self, capability: str) -> bool:
        """Whether an engine that was built without naming a compute capability runs on this one."""
        later = major_minor(capability) > major_minor(self.later_than)
        return later or capability in self.targets

    def supports(self, capability: str) -> bool:
        """Whether there is an engine at all that runs on it."""
        return self.runs_by_default(capability) or capability in self.named

    def __str__(self) -> str:
        last = major_minor(self.later_than)
        return f"{', '.join(t for t in self.targets if major_minor(t) <= last)} and later"


_SUPPORT = {
    # 1.7.1.116 on an H200, of an engine that was built without naming any: "The engine cannot run on this
    # GPU, which has compute capability 9.0. Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0.
    # TensorRT-RTX does not support this compute capability, so the engine cannot be rebuilt for it."
    "1.7": RtxSupport(
        targets=("8.0", "8.6", "8.9", "12.0", "12.1"),
        later_than="12.0",
        named=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    )
}


def rtx_support(version: str) -> RtxSupport | None:
    """What a version of TensorRT-RTX supports; None where it is not known.

    Args:
        version: Such as ``1.7.1.116``.
    """
    return _SUPPORT.get(".".join(version.split(".")[:2]))
