"""The running half of the fake TensorRT: runtime, engine, contexts, and the protocol between them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fakes.gpu import COMPUTE_MS, FakeGpu, Operation
from tests.fakes.strict import Bound
from tests.fakes.trt_building import PLAN_MARK

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}
CACHE_MARK = b"fake runtime cache of "

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan."""

    name: str
    dtype: str
    is_input: bool
    shape: Shape

    def size_of(self, batch: int) -> tuple[Shape, int]:
        """Its shape and bytes at a batch size."""
        shape = (batch if self.shape[0] == -1 else self.shape[0], *self.shape[1:])
        itemsize = np.dtype(_DTYPES.get(self.dtype, "float32")).itemsize
        return shape, int(np.prod(shape)) * itemsize


class Plan:
    """What a plan says; outlives the engine, as facts do."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        said = json.loads(content.removeprefix(PLAN_MARK))
        self.flavor: str = said["flavor"]
        self.tensors = {
            item["name"]: Tensor(item["name"], item["dtype"], item["input"], tuple(item["shape"]))
            for item in said["tensors"]
        }
        self.brings_code = "VERSION_COMPATIBLE" in said["config"]["flags"]
        self.profiles: list[list[list[int]]] = [shapes[0] for shapes in said["profiles"]]

    @property
    def given(self) -> Tensor:
        """Its input."""
        return next(tensor for tensor in self.tensors.values() if tensor.is_input)

    def takes(self, shape: Shape, profile: int) -> bool:
        """Whether a shape of the input is within a profile."""
        if not self.profiles:
            return shape == self.given.shape
        least, _, most = self.profiles[profile]
        within = (low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        return len(shape) == len(least) and all(within)


def sums(plan: Plan, images: NDArray[Any]) -> NDArray[Any]:
    """What a fake engine computes unless told otherwise: class k of an image is (k + 1) times its sum."""
    classes = plan.tensors["logits"].shape[1]
    totals = images.astype(np.float64).sum(axis=tuple(range(1, images.ndim)))
    return np.outer(totals, np.arange(1, classes + 1)).astype(np.float32)


class Runtime(Bound):
    """Loads plans of its own flavor."""

    def _init(self, *arguments: Any) -> None:
        self._trt._enter(self, "runtime", *arguments)

    engine_host_code_allowed: bool = False

    def deserialize_cuda_engine(self, content: Any) -> Any:
        content = bytes(content)
        if self._trt._gpu.refuses("deserialize_cuda_engine"):
            self._trt._say("ERROR", "out of memory")
            return None
        if not content.startswith(PLAN_MARK) or Plan(content).flavor != self._api.flavor:
            self._trt._say("ERROR", "magic tag does not match")
            return None
        if Plan(content).brings_code and not self.engine_host_code_allowed:
            self._trt._say("ERROR", "the plan brings a runtime, and host code is not allowed")
            return None
        self._trt._say("INFO", "Loaded engine size: 0 MiB")
        return self._trt.ICudaEngine._made(Plan(content))

    def get_engine_validity(self, content: Any) -> tuple[Any, int]:
        verdicts, reasons = self._trt.EngineValidity, self._trt.EngineInvalidityDiagnostics
        if bytes(content).startswith(PLAN_MARK):
            return verdicts.VALID, 0
        return verdicts.INVALID, int(reasons.MALFORMED_ENGINE) | int(reasons.VERSION_MISMATCH)


class ICudaEngine(Bound):
    """A plan that was loaded."""

    def _init(self, *arguments: Any) -> None:
        (self._plan,) = arguments
        self._trt._owned("engine", self, "context")

    @property
    def num_io_tensors(self) -> int:
        return len(self._plan.tensors)

    @property
    def num_layers(self) -> int:
        return 7

    @property
    def device_memory_size_v2(self) -> int:
        return 4096

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._plan.tensors)[index])

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt.DataType, self._plan.tensors[name].dtype)

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        return modes.INPUT if self._plan.tensors[name].is_input else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> Any:
        return list(self._plan.tensors[name].shape)

    def create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector._made()

    def create_runtime_config(self) -> Any:
        return self._trt.IRuntimeConfig._made(self._plan)

    def create_execution_context(self, how: Any = None) -> Any:
        if self._trt._gpu.refuses("create_execution_context"):
            self._trt._say("ERROR", "no memory for activations")
            return None
        return self._trt.IExecutionContext._made(self._plan, how)


class EngineInspector(Bound):
    """Says how many layers there are."""

    def get_engine_information(self, how: Any) -> str:
        return json.dumps({"Layers": ["a"] * 7}) if how.name == "JSON" else "a\n" * 7


class IRuntimeCache(Bound):
    """Kernels of one plan by input shape; refuses what is not of this flavor."""

    def _init(self, *arguments: Any) -> None:
        (self._plan,) = arguments
        self._kernels: set[Shape] = set()
        self._trt._owned("runtime cache", self)

    def _mark(self) -> bytes:
        return CACHE_MARK + self._api.flavor.encode() + b"\n"

    def deserialize(self, content: Any) -> bool:
        content = bytes(content)
        if not content.startswith(self._mark()):
            self._trt._say("WARNING", "the runtime cache is of another version")
            return False
        self._kernels = {tuple(shape) for shape in json.loads(content.removeprefix(self._mark()))}
        return True

    def serialize(self) -> Any:
        if self._trt._gpu.refuses("IRuntimeCache.serialize"):
            return None
        return self._trt.IHostMemory._made(self._mark() + json.dumps(sorted(self._kernels)).encode())


class IRuntimeConfig(Bound):
    """How contexts are made."""

    def _init(self, *arguments: Any) -> None:
        (self._plan,) = arguments
        self._cache: Any = None
        self._trt._owned("runtime config", self, "context")

    cuda_graph_strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def create_runtime_cache(self) -> Any:
        return self._trt.IRuntimeCache._made(self._plan)

    def set_runtime_cache(self, cache: Any) -> bool:
        if self._trt._gpu.refuses("set_runtime_cache"):
            return False
        self._cache = cache
        return True


class IExecutionContext(Bound):
    """One shape on one stream."""

    def _init(self, *arguments: Any) -> None:
        self._plan, config = arguments
        gpu: FakeGpu = self._trt._gpu
        self._id = gpu.new_id()
        self._gpu = gpu
        self._profile = 0
        self._shape: Shape | None = None if self._plan.given.shape[0] == -1 else self._plan.given.shape
        self._addresses: dict[str, int] = {}
        self._stream: list[int] = []
        self._warm = False
        self._graph: tuple[dict[str, int], Operation] | None = None
        self._kernels = None if config is None or config._cache is None else config._cache._kernels
        strategy = None if config is None else config.__dict__.get("cuda_graph_strategy")
        self._strategy = "DISABLED" if strategy is None else strategy.name
        self._trt.graph_strategies.append(self._strategy)
        kernels = None if config is None else config.dynamic_shapes_kernel_specialization_strategy
        self._trt.kernel_strategies.append("LAZY" if kernels is None else kernels.name)
        stream, number = self._stream, self._id

        def end() -> None:
            if gpu.in_use(number):
                gpu.violations.append("a context is destroyed while its inference is pending")
            for handle in stream:
                gpu.streams[handle].users -= 1

        self._trt._owned("context", self, end=end)

    nvtx_verbosity: Any = None

    @property
    def active_optimization_profile(self) -> int:
        return int(self._profile)

    def _on(self, handle: int) -> None:
        """Every call must be on one and the same stream."""
        stream = self._gpu.stream(handle)
        if not self._stream:
            self._stream.append(handle)
            stream.users += 1
        elif self._stream != [handle]:
            raise self._gpu.violate("a context is used on a second stream")

    def set_optimization_profile_async(self, number: int, handle: int) -> bool:
        self._on(handle)
        if not 0 <= number < max(len(self._plan.profiles), 1):
            self._trt._say("ERROR", f"there is no profile {number}")
            return False
        self._profile, self._shape = number, None
        self._forget()
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        if name != self._plan.given.name:
            self._trt._say("ERROR", f"there is no input {name}")
            return False
        if not self._plan.takes(tuple(shape), self._profile):
            self._trt._say("ERROR", f"shape {tuple(shape)} is outside profile {self._profile}")
            return False
        if tuple(shape) != self._shape:
            self._shape = tuple(shape)
            self._forget()
        return True

    def _forget(self) -> None:
        """Another shape has addresses and a graph of its own."""
        self._addresses, self._warm, self._graph = {}, False, None

    def infer_shapes(self) -> list[str]:
        return [] if self._shape is not None else [self._plan.given.name]

    def get_tensor_shape(self, name: str) -> Any:
        if self._shape is None:
            return list(self._plan.tensors[name].shape)
        return list(self._plan.tensors[name].size_of(self._shape[0])[0])

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._shape is None:
            raise self._gpu.violate(f"{name} is bound before the shape of the input is set")
        if name not in self._plan.tensors or self._gpu.refuses("set_tensor_address"):
            self._trt._say("ERROR", f"{name} cannot be bound")
            return False
        self._gpu.view(address, self._plan.tensors[name].size_of(self._shape[0])[1])
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        self._on(handle)
        if self._shape is None:
            raise self._gpu.violate("execution without a shape")
        if missing := self._plan.tensors.keys() - self._addresses.keys():
            raise self._gpu.violate(f"execution without addresses of {sorted(missing)}")
        stream = self._gpu.stream(handle)
        if stream.captured is not None and self._strategy != "DISABLED":
            raise self._gpu.violate("a context that captures its own graphs is captured")
        if stream.captured is not None and not self._warm:
            raise self._gpu.violate("a context is captured that never ran: it allocates at its first run")
        if self._gpu.refuses("execute_async_v3"):
            self._trt._say("ERROR", "no kernel image is available")
            return False
        verbosity = self.nvtx_verbosity or self._trt.ProfilingVerbosity.DETAILED
        self._trt.nvtx_verbosities.add(verbosity.name)
        self._compile()
        if self._strategy == "DISABLED" or not self._warm or not self._trt.capturable(self._shape):
            self._gpu.log.append("execute")
            stream.put(self._operation())
        else:
            stream.put(self._captured())
        self._warm = stream.captured is None or self._warm
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        self._gpu.stream(stream)
        if self._shape is None:
            raise self._gpu.violate("a context is asked for captures without a shape")
        return bool(self._trt.capturable(self._shape))

    def _captured(self) -> Operation:
        """RTX's own graph: captured, and launched, in the second run of a shape; replayed from the third."""
        if self._graph is None:
            self._gpu.log.append("capture")
            self._graph = dict(self._addresses), self._operation()
        elif self._graph[0] != self._addresses:
            raise self._gpu.violate("a graph is replayed with other addresses than it was captured with")
        else:
            self._gpu.log.append("replay")
        return self._graph[1]

    def _compile(self) -> None:
        if self._trt._api.is_rtx and (self._kernels is None or self._shape not in self._kernels):
            self._trt.compiled.append(self._shape)
            if self._kernels is not None:
                self._kernels.add(self._shape)

    def _operation(self) -> Operation:
        """The inference with the addresses of now."""
        gpu, plan, addresses, computes = self._gpu, self._plan, dict(self._addresses), self._trt.computes
        assert self._shape is not None
        sizes = {name: tensor.size_of(self._shape[0]) for name, tensor in plan.tensors.items()}

        def array(name: str) -> NDArray[Any]:
            shape, size = sizes[name]
            return gpu.view(addresses[name], size).view(_DTYPES[plan.tensors[name].dtype]).reshape(shape)

        def work() -> None:
            images = array(plan.given.name)
            for name, tensor in plan.tensors.items():
                if not tensor.is_input:
                    array(name)[...] = computes(plan, images)

        uses = frozenset((self._id, *addresses.values()))
        return Operation(work=work, uses=uses, duration_ms=COMPUTE_MS)
