"""The fake RTX captures as the real one says it does, and refuses a replay with other addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine_bench import RTX, make_bench
from tests.fakes.gpu import FakeDevice, FakeGpu, ProtocolError

SHAPE = (2, 3, 4, 4)


class Rig:
    """A context of RTX that captures graphs, with its buffers."""

    def __init__(self, folder: Path) -> None:
        bench = make_bench(RTX, folder, FakeGpu())
        self.module, self.gpu = bench.module, bench.gpu
        self.device = FakeDevice(self.gpu)
        self.runtime = self.module.Runtime(self._logger())
        self.engine = self.runtime.deserialize_cuda_engine(bench.plan.read_bytes())
        config = self.engine.create_runtime_config()
        config.cuda_graph_strategy = self.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self.context = self.engine.create_execution_context(config)
        self.bind(SHAPE)

    def _logger(self) -> Any:
        class Logger(self.module.ILogger):  # type: ignore[misc,name-defined]
            def log(self, severity: Any, msg: str) -> None:
                """Nobody listens."""

        self.logger = Logger()
        return self.logger

    def bind(self, shape: tuple[int, ...]) -> None:
        assert self.context.set_input_shape("images", shape)
        self.images = self.device.allocate(4 * int(np.prod(shape)))
        assert self.context.set_tensor_address("images", self.images.address)
        self.logits = self.device.allocate(4 * 5 * shape[0])
        assert self.context.set_tensor_address("logits", self.logits.address)

    def runs(self, count: int) -> list[str]:
        """What each of them was."""
        self.gpu.log.clear()
        for _ in range(count):
            assert self.context.execute_async_v3(self.device.stream)
            self.device.synchronize()
        return self.gpu.log


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_second_run_of_a_shape_captures_and_the_third_replays(rig: Rig) -> None:
    assert rig.runs(4) == ["execute", "capture", "replay", "replay"]
    rig.bind((1, 3, 4, 4))
    assert rig.runs(3) == ["execute", "capture", "replay"]


def test_what_cannot_be_captured_runs_plain_without_a_word(rig: Rig) -> None:
    rig.module.capturable = lambda shape: shape != SHAPE
    assert not rig.context.is_stream_capturable(rig.device.stream)
    assert rig.runs(3) == ["execute"] * 3
    rig.bind((1, 3, 4, 4))
    assert rig.context.is_stream_capturable(rig.device.stream)


def test_a_replay_works_on_the_memory_of_its_capture(rig: Rig) -> None:
    rig.runs(2)
    rig.gpu.memory[rig.images.address].view(np.float32)[:] = 1
    rig.runs(1)
    logits = rig.gpu.memory[rig.logits.address].view(np.float32).reshape(2, 5)
    np.testing.assert_array_equal(logits[:, 0], [48, 48])
    assert rig.context.set_tensor_address("images", rig.device.allocate(rig.images.size_bytes).address)
    with pytest.raises(ProtocolError, match="other addresses"):
        rig.runs(1)


def test_a_context_without_a_shape_cannot_be_asked(rig: Rig) -> None:
    context = rig.engine.create_execution_context()
    with pytest.raises(ProtocolError, match="without a shape"):
        context.is_stream_capturable(rig.device.stream)
