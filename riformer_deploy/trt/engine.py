"""A plan that is ready to run: engine, execution contexts, and the calls between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.trt.bindings import Log, TensorRT, started

if TYPE_CHECKING:
    from tensorrt_api import ICudaEngine, IExecutionContext, IRuntimeCache, IRuntimeConfig, Runtime

_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
_MESSAGES_KEPT = 100
"""An engine may run for months; only the last messages matter."""


@dataclass(frozen=True, kw_only=True)
class EngineTensor:
    """An input or output of an engine.

    Attributes:
        name: Its name.
        dtype: Of its elements.
        is_input: Whether it is an input.
        shape: Its shape; -1 where dynamic.
    """

    name: str
    dtype: np.dtype[np.generic]
    is_input: bool
    shape: tuple[int, ...]


class Context:
    """An execution context for one shape on one stream.

    Args:
        context: TensorRT's.
        engine: Which it belongs to.
        trt: The bindings.
    """

    def __init__(self, context: IExecutionContext, engine: Engine, trt: TensorRT) -> None:
        self._context = context
        self._engine, self._trt = engine, trt

    def _check(self, done: object, what: str) -> None:
        if not done:
            raise self._engine.failure(f"could not {what}")

    def prepare(
        self, name: str, shape: tuple[int, ...], *, profile: int, stream: int
    ) -> dict[str, tuple[int, ...]]:
        """Select a profile and set the shape of the input.

        Args:
            name: Of the input.
            shape: Its shape.
            profile: Number of the optimisation profile.
            stream: Handle of the stream that the context will run on.

        Returns:
            The shapes of all inputs and outputs.

        Raises:
            RuntimeFailureError: TensorRT refuses the shape.
        """
        if self._context.active_optimization_profile != profile:
            done = self._context.set_optimization_profile_async(profile, stream)
            self._check(done, f"select profile {profile}")
        self._check(self._context.set_input_shape(name, shape), f"take {name} of shape {shape}")
        missing = self._context.infer_shapes()
        self._check(not missing, f"find the shapes of its outputs: {', '.join(missing)} not set")
        return {t.name: tuple(self._context.get_tensor_shape(t.name)) for t in self._engine.tensors}

    def bind(self, name: str, address: int) -> None:
        """Say where a tensor lies in device memory.

        Raises:
            RuntimeFailureError: TensorRT refuses the address.
        """
        self._check(self._context.set_tensor_address(name, address), f"bind {name}")

    def execute(self, stream: int) -> None:
        """Put one inference on the stream.

        Raises:
            RuntimeFailureError: TensorRT refuses.
        """
        self._check(self._context.execute_async_v3(stream), "run")

    def capturable(self, stream: int) -> bool:
        """Whether the flavor says that it can capture CUDA graphs of what it would put on the stream.

        Args:
            stream: Handle of the stream.
        """
        if not self._trt.has_capturable_check:
            return False
        return bool(self._context.is_stream_capturable(stream))

    def close(self) -> None:
        """Destroy the context; its last inference must be over."""
        self._context = cast("IExecutionContext", None)  # nobody calls it any more


class Engine:
    """A plan, loaded.

    Args:
        trt: The bindings.
        plan: The plan; preflight has seen it.
        what: What messages call it.
        cuda_graphs: Let the flavor capture CUDA graphs itself, where it does (TensorRT-RTX).
        runtime_cache: Kernels compiled by earlier runs (TensorRT-RTX), or None.
        host_code: Let the plan bring its own runtime, as version-compatible ones do; it runs on the host.

    Raises:
        RuntimeFailureError: TensorRT does not load it.
    """

    def __init__(
        self,
        trt: TensorRT,
        plan: bytes,
        *,
        what: str,
        cuda_graphs: bool = False,
        runtime_cache: bytes | None = None,
        host_code: bool = False,
    ) -> None:
        self._trt, self._what = trt, what
        self._log = Log(trt, kept=_MESSAGES_KEPT)
        self._engine = cast("ICudaEngine", None)
        self._config: IRuntimeConfig | None = None
        self._cache: IRuntimeCache | None = None
        self._runtime: Runtime | None = started(trt.module.Runtime, self._log)
        try:
            self._load(plan, cuda_graphs, runtime_cache, host_code)
        except BaseException:
            self.close()  # now, not when the traceback is forgotten
            raise

    def _load(self, plan: bytes, cuda_graphs: bool, runtime_cache: bytes | None, host_code: bool) -> None:  # noqa: FBT001
        if self._runtime is None:
            raise self.failure("could not start")
        if host_code:
            self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self.failure("could not load the plan")
        self._engine = engine
        del engine  # a traceback through here would keep it alive
        self._config, self._cache = self._runtime_config(cuda_graphs, runtime_cache)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.tensors = tuple(self._tensor(name) for name in names)

    def failure(self, what: str) -> RuntimeFailureError:
        """An error that holds what TensorRT said of it."""
        return RuntimeFailureError(
            f"{self._trt.backend.label} {self._trt.version} {what}: {self._what}.",
            details=self._log.errors[-5:],
        )

    @property
    def captures_graphs(self) -> bool:
        """Whether the flavor captures CUDA graphs itself."""
        return self._trt.has_cuda_graphs

    def _runtime_config(
        self,
        cuda_graphs: bool,  # noqa: FBT001
        cached: bytes | None,
    ) -> tuple[IRuntimeConfig | None, IRuntimeCache | None]:
        """What contexts are made with, where the flavor has runtime caches and graphs of its own."""
        if not self._trt.has_runtime_cache:
            return None, None
        config = self._engine.create_runtime_config()
        if cuda_graphs:
            config.cuda_graph_strategy = self._trt.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Kernels of a new shape are compiled before it runs, not behind it: what is compared and timed is
        # what goes on running, and nothing compiles beside other candidates.
        strategies = self._trt.module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        cache = config.create_runtime_cache()
        if cached is not None:
            cache.deserialize(cached)  # one of another GPU or version is refused, and kernels compiled anew
        return config, cache if config.set_runtime_cache(cache) else None

    def _tensor(self, name: str) -> EngineTensor:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise self.failure(f"has a tensor {name} of type {kind}, which NumPy has not")
        return EngineTensor(
            name=name,
            dtype=np.dtype(_DTYPES[kind]),
            is_input=self._engine.get_tensor_mode(name) == self._trt.module.TensorIOMode.INPUT,
            shape=tuple(self._engine.get_tensor_shape(name)),
        )

    def context(self) -> Context:
        """A new execution context.

        Raises:
            RuntimeFailureError: There is not enough device memory for it.
        """
        arguments = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*arguments)
        if context is None:
            raise self.failure("could not create an execution context")
        # Plans are built with detailed names, which cost time at every launch where NVTX gets them.
        context.nvtx_verbosity = self._trt.module.ProfilingVerbosity.NONE
        return Context(context, self, self._trt)

    @property
    def images(self) -> EngineTensor:
        """The input; our graphs have one."""
        return next(tensor for tensor in self.tensors if tensor.is_input)

    @property
    def num_layers(self) -> int:
        """Layers after fusion."""
        return int(self._engine.num_layers)

    @property
    def memory_bytes(self) -> int:
        """Device memory that a context takes for activations."""
        return int(self._engine.device_memory_size_v2)

    def layers_json(self) -> str:
        """The inspector's account of every layer, as JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.module.LayerInformationFormat.JSON)
        return text

    def runtime_cache(self) -> bytes | None:
        """Kernels compiled so far, for the next run; None where the flavor compiles none."""
        if not self._trt.has_runtime_cache or self._cache is None:
            return None
        serialized = self._cache.serialize()
        return None if serialized is None else bytes(serialized)

    def close(self) -> None:
        """Destroy everything, in order; every context must be closed."""
        self._cache = self._config = None
        self._engine = cast("ICudaEngine", None)  # nobody calls it any more
        self._runtime = None
