from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys

import numpy as np

from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.system.machine import describe_machine, library_versions, peak_rss_bytes, usable_cores
from riformer_deploy.system.records import Machine


def test_the_description_is_of_this_machine_and_comes_back_equal() -> None:
    machine = describe_machine()
    assert load_json(Machine, dump_json(machine)) == machine
    assert machine.python == platform.python_version()
    assert machine.system.startswith(platform.system())
    assert machine.cores == usable_cores()
    assert machine.cpu
    assert machine.libraries == library_versions()


def test_the_description_does_not_identify_the_machine() -> None:
    text = dump_json(describe_machine())
    assert platform.node() not in text
    assert os.path.expanduser("~") not in text  # noqa: PTH111


def test_memory_is_what_the_kernel_counts() -> None:
    memory = describe_machine().memory_bytes
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
        total_kib = int(file.readline().split()[1])
    assert memory == total_kib * 1024


def test_versions_are_of_what_is_installed() -> None:
    versions = library_versions()
    assert versions["numpy"] == np.__version__
    assert versions["torch"] == importlib.metadata.version("torch")
    installed = {dist.name.lower().replace("_", "-") for dist in importlib.metadata.distributions()}
    assert set(versions) <= installed
    assert ("tensorrt" in versions) == ("tensorrt" in installed)


def printed_by(code: str) -> str:
    done = subprocess.run(  # noqa: S603 (the code is in this file)
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_cores_are_those_that_the_process_may_use() -> None:
    restrict = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{restrict}\nfrom riformer_deploy.system.machine import usable_cores\nprint(usable_cores())"
    assert printed_by(code) == "1\n"


def test_peak_memory_is_in_bytes_stays_when_freed_and_is_not_the_parents() -> None:
    large = b"x" * 2**28  # Linux hands the peak of a process on to what it starts, in ru_maxrss
    code = (
        "from riformer_deploy.system.machine import peak_rss_bytes as peak\n"
        "before = peak(); block = b'x' * 2**27; del block; print(before, peak() - before)"
    )
    before, growth = map(int, printed_by(code).split())
    assert 2**21 < before < len(large) / 2
    assert 0.9 * 2**27 < growth < 1.1 * 2**27
    assert peak_rss_bytes() > len(large)
