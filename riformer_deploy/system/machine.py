"""What a measurement ran on; part of every result."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path

from riformer_deploy.common.dependencies import distribution_version
from riformer_deploy.system.cuda_driver import query_driver
from riformer_deploy.system.records import Machine

_LIBRARIES = (
    "riformer-deploy", "torch", "numpy", "pillow", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime",
    "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx",
    "cuda-bindings", "pycuda",
)  # fmt: skip


def usable_cores() -> int:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library_versions() -> dict[str, str]:
    """Versions of the libraries that take part in results and are installed."""
    versions = {name: distribution_version(name) for name in _LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}


def describe_machine() -> Machine:
    """This machine, now."""
    driver = query_driver()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        memory = None
    return Machine(
        cpu=_cpu_name(),
        cores=usable_cores(),
        memory_bytes=memory,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        libraries=library_versions(),
        gpus=tuple(
            f"{gpu.name}, compute capability {gpu.compute_capability}, CUDA {driver.cuda_version}"
            for gpu in driver.gpus
        ),
        instruction_sets=_instruction_sets(),
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


_INSTRUCTION_SETS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "amx_fp16", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def _instruction_sets() -> tuple[str, ...]:
    """Of Linux's names of what the CPU has, those that decide how fast int8 and half precision are."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return ()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return tuple(name for name in _INSTRUCTION_SETS if name in flags)
    return ()


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage begins with the peak of the process that started this one
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
