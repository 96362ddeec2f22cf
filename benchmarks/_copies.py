"""How fast a device layer copies, and whether what it copies arrives."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from riformer_deploy.backends.cuda.base import Device

_COPY_BYTES = 64 * 2**20


def copy_rates(device: Device) -> dict[str, Any]:
    """A round trip through device memory: whether it comes back, and at which rate each way."""
    with contextlib.ExitStack() as frees:
        there = device.allocate(_COPY_BYTES)
        frees.callback(device.free, there)
        hosts = [device.allocate_host(_COPY_BYTES) for _ in range(2)]
        for host in hosts:
            frees.callback(device.free_host, host)
        events = [device.event() for _ in range(3)]
        for event in events:
            frees.callback(device.free_event, event)
        source, target = hosts
        source.data[:] = np.arange(_COPY_BYTES, dtype=np.uint32).astype(np.uint8)
        device.record(events[0])
        device.to_device(there, source)
        device.record(events[1])
        device.to_host(target, there)
        device.record(events[2])
        device.synchronize()
        up_ms, down_ms = device.elapsed_ms(events[0], events[1]), device.elapsed_ms(events[1], events[2])
        return {
            "round_trip_is_exact": bool(np.array_equal(source.data, target.data)),
            "to_device_bytes_per_s": 1000 * _COPY_BYTES / up_ms,
            "to_host_bytes_per_s": 1000 * _COPY_BYTES / down_ms,
            "captures_graphs": device.captures_graphs,
        }
