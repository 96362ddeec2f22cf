"""Closed choices that the command line offers as they are; so nothing else is imported here."""

from __future__ import annotations

from enum import StrEnum


class NormForm(StrEnum):
    """Which operators compute the norm."""

    INSTANCE = "instance"
    """InstanceNormalization over (N, 1, C * H * W)."""
    GROUP = "group"
    """GroupNormalization with one group; needs opset 21."""
    LAYER = "layer"
    """LayerNormalization over (N, C * H * W)."""
    MOMENTS = "moments"
    """Means of each channel, from which the statistics of both norms of a block follow."""


class MlpForm(StrEnum):
    """Which operators compute the two layers of an MLP."""

    CONV = "conv"
    """1x1 convolutions of (N, C, H, W)."""
    MATMUL = "matmul"
    """Matrix products of tokens, (N, H * W, C)."""


class LayerGroup(StrEnum):
    """Layers that are alike, in a word."""

    STEM = "stem"
    DOWNSAMPLING = "downsampling"
    """The strided convolutions between stages."""
    FC1 = "fc1"
    FC2 = "fc2"
    HEAD = "head"


class ResidualForm(StrEnum):
    """What is rounded to int8 of a block's residual additions."""

    INPUTS = "inputs"
    """Both inputs of the last addition."""
    RESULTS = "results"
    """The results of both additions, and of the stem or downsampling layer before the block: the stream is
    int8 in memory, which is what OpenVINO has fast kernels for."""


class Norm2Form(StrEnum):
    """Where ``norm2`` is computed."""

    EXPLICIT = "explicit"
    """Before fc1, so that the normalised map is written."""
    FOLDED = "folded"
    """Behind fc1's product, from two statistics of each sample."""


class Method(StrEnum):
    """How a range is chosen."""

    MAX = "max"
    """The largest value seen: nothing is clipped."""
    MSE = "mse"
    """The least squared error of the layer's *output*, for rounding errors that are independent: every
    input channel's error counts with the energy of the weights that it meets."""
    PERCENTILE = "percentile"
    """The value that 99.99 % of the inputs do not exceed."""
    ENTROPY = "entropy"
    """The least Kullback-Leibler divergence between the values and their rounding to 128 levels
    (Migacz, "8-bit inference with TensorRT", GTC 2017)."""


class InputForm(StrEnum):
    """What the graph takes."""

    NORMALISED = "normalised"
    """(N, 3, H, W) floating point, normalised by the caller."""
    UINT8 = "uint8"
    """(N, H, W, 3) uint8 RGB as decoded; the normalisation is in the graph."""


class OutputForm(StrEnum):
    """What the graph gives."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    FEATURES = "features"
    TOPK = "topk"
    MAPS = "maps"
    """Feature maps, each through its norm, as mmpretrain's backbone gives them to detectors."""


class Precision(StrEnum):
    """The precision that a lowered model computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"
    """E4M3 in the convolutions of the MLPs, half elsewhere."""

    @property
    def is_quantized(self) -> bool:
        """Whether layers are rounded to ranges that calibration images give."""
        return self in {Precision.INT8, Precision.FP8}


class HardwareCompatibility(StrEnum):
    """Which other GPUs an engine of TensorRT runs on."""

    NONE = "none"
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"
    AMPERE_PLUS = "ampere-plus"


class DeviceLayer(StrEnum):
    """The package that device memory comes from."""

    CUDA_PYTHON = "cuda-python"
    PYCUDA = "pycuda"


class Role(StrEnum):
    """What a model is in a comparison of latencies."""

    BASELINE = "baseline"
    """What candidates are measured against; the strongest one is what counts."""
    CANDIDATE = "candidate"
    """What is compared with them: an artifact of the bundle in a runtime."""


class Group(StrEnum):
    """Kinds of candidates that a command can ask for."""

    TORCH = "torch"
    COMPILED = "compiled"
    ONNX = "onnx"
    OPENVINO = "openvino"
    GPU = "gpu"
    """What engines are measured against on a GPU: PyTorch, and ONNX Runtime's CUDA provider."""
    ENGINE = "engine"


class RuntimeKind(StrEnum):
    """What runs a model."""

    PYTORCH = "pytorch"
    ONNX_RUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    """An engine, which is a file of its own."""

    @property
    def judges_file(self) -> bool:
        """Whether parity in this runtime decides whether the file is right.

        OpenVINO's does not: it accumulates half precision in half on processors with AVX512-FP16, so that the
        same file passes on one machine and fails on another.
        """
        return self is not RuntimeKind.OPENVINO


class Processor(StrEnum):
    """Where a model runs."""

    CPU = "cpu"
    GPU = "gpu"


class CompileMode(StrEnum):
    """How hard PyTorch's compiler tries; either way what it makes runs as CUDA graphs."""

    REDUCE_OVERHEAD = "reduce-overhead"
    """Kernels as PyTorch's defaults choose them."""
    MAX_AUTOTUNE = "max-autotune"
    """Kernels that were the fastest of several; choosing them takes minutes."""


class Baselines(StrEnum):
    """Which ways of running the weights with PyTorch on a GPU are measured."""

    NONE = "none"
    """None."""
    QUICK = "quick"
    """The strongest that compile within a minute."""
    STRONG = "strong"
    """A few, of which one is the fastest as a rule."""
    ALL = "all"
    """Every combination of type, layout and compiler options; compiling them takes many minutes."""


class Target(StrEnum):
    """Where ``run`` is to deploy to."""

    AUTO = "auto"
    """What this machine has, and the GPUs that it can build engines for."""
    CPU = "cpu"
    GPU = "gpu"


class WeightSet(StrEnum):
    """Which of a checkpoint's sets of weights was taken."""

    ONLY = "only"
    """The checkpoint holds one set."""
    AVERAGED = "averaged"
    """The exponential moving average, which mmengine's EMAHook stores as ``state_dict``."""
    RAW = "raw"
    """The weights that the optimiser last wrote, which EMAHook stores as ``ema_state_dict``."""
