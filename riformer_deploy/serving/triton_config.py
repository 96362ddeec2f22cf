"""Configurations of a bundle's models in Triton, complete: nothing is left to auto-completion."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.bundle.artifacts import OnnxArtifact, TensorSpec
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.common.enums import HardwareCompatibility
from riformer_deploy.serving.pbtxt import Message, Symbol, Value

PICTURES = "pictures"
"""Input of the ensemble: encoded pictures, one a batch entry."""
LABELS = "labels.txt"
ONNX_FILE = "model.onnx"
PLAN_FILE = "model.plan"
WARMUP_IMAGES = "golden"
WARMUP_PICTURE = "picture"
_PICTURE_INSTANCES = 2
_DTYPES = {
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelNames:
    """What the models of one bundle are called.

    Attributes:
        pictures: The ensemble: encoded pictures to outputs.
        preprocess: Encoded pictures to what the network takes.
        network: The artifact itself.
    """

    pictures: str
    preprocess: str
    network: str

    @classmethod
    def of(cls, name: str) -> ModelNames:
        """Those that begin with ``name``, which is the ensemble's."""
        return cls(pictures=name, preprocess=f"{name}-preprocess", network=f"{name}-network")


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How Triton puts requests together.

    Attributes:
        largest: Most images in one batch.
        preferred: Batch sizes that are run as soon as they are full.
        longest_delay_us: How long the first request of a batch waits for others, microseconds.
        source: Where the figures come from, in words.
    """

    largest: int
    preferred: tuple[int, ...]
    longest_delay_us: int
    source: str


def data_type(spec: TensorSpec) -> Symbol:
    """Triton's name of a tensor's type."""
    return Symbol(_DTYPES[spec.dtype])


def _common(name: str, batching: Batching) -> dict[str, Value]:
    return {
        "name": name,
        "max_batch_size": batching.largest,
        "version_policy": {"latest": {"num_versions": 1}},
    }


def _input(spec: TensorSpec) -> Message:
    return {"name": spec.name, "data_type": data_type(spec), "dims": list(spec.shape[1:])}


def _outputs(artifact: OnnxArtifact | EngineArtifact, *, labels: bool) -> list[Value]:
    found: list[Value] = []
    for spec in artifact.outputs:
        named = labels and spec.name in {"logits", "probabilities"}
        found.append({**_input(spec), **({"label_filename": LABELS} if named else {})})
    return found


def _dynamic_batching(batching: Batching) -> Message:
    return {
        "preferred_batch_size": list(batching.preferred),
        "max_queue_delay_microseconds": batching.longest_delay_us,
    }


def _engine(engine: EngineArtifact) -> Message:
    """Where a plan lies and which of its profiles are used."""
    metadata = engine.metadata
    made_for = metadata.gpu_compute_capability
    any_gpu = metadata.settings.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS
    by_capability = [] if any_gpu or made_for is None else [{"key": made_for, "value": PLAN_FILE}]
    return {
        "backend": "tensorrt",
        "platform": "tensorrt_plan",
        "default_model_filename": PLAN_FILE,
        "cc_model_filenames": by_capability,
        "instance_group": [
            {
                "count": 1,
                "kind": Symbol("KIND_GPU"),
                "profile": [str(number) for number in range(len(metadata.profiles))],
            }
        ],
    }


def _onnx() -> Message:
    return {
        "backend": "onnxruntime",
        "default_model_filename": ONNX_FILE,
        "instance_group": [{"count": 1, "kind": Symbol("KIND_AUTO")}],
    }


def network_config(
    names: ModelNames,
    artifact: OnnxArtifact | EngineArtifact,
    batching: Batching,
    *,
    labels: bool,
    cached: bool,
) -> Message:
    """The artifact: what the graph takes in, what it gives out.

    Args:
        names: Of the models.
        artifact: A graph of dynamic batch, or an engine of TensorRT.
        batching: How requests are put together.
        labels: Whether the classes have names.
        cached: Whether the same request is answered from the server's cache.
    """
    (source,) = artifact.inputs
    warm_up: list[Value] = [
        {
            "name": f"golden-{size}",
            "batch_size": size,
            "inputs": {
                "key": source.name,
                "value": {
                    "data_type": data_type(source),
                    "dims": list(source.shape[1:]),
                    "input_data_file": WARMUP_IMAGES,
                },
            },
        }
        for size in sorted({1, *batching.preferred})
    ]
    return {
        **_common(names.network, batching),
        **(_engine(artifact) if isinstance(artifact, EngineArtifact) else _onnx()),
        "input": [_input(source)],
        "output": _outputs(artifact, labels=labels),
        "dynamic_batching": _dynamic_batching(batching),
        "model_warmup": warm_up,
        "response_cache": {"enable": cached},
    }


def preprocess_config(
    names: ModelNames, artifact: OnnxArtifact | EngineArtifact, batching: Batching
) -> Message:
    """Encoded pictures to the artifact's input, in the Python backend.

    Args:
        names: Of the models.
        artifact: What takes the pictures then.
        batching: For the largest batch alone: pictures are decoded as they come.
    """
    (target,) = artifact.inputs
    return {
        **_common(names.preprocess, batching),
        "backend": "python",
        "default_model_filename": "model.py",
        "input": [{"name": PICTURES, "data_type": Symbol("TYPE_STRING"), "dims": [1]}],
        "output": [_input(target)],
        "instance_group": [{"count": _PICTURE_INSTANCES, "kind": Symbol("KIND_CPU")}],
        "model_warmup": [
            {
                "name": "picture",
                "batch_size": 1,
                "inputs": {
                    "key": PICTURES,
                    "value": {
                        "data_type": Symbol("TYPE_STRING"),
                        "dims": [1],
                        "input_data_file": WARMUP_PICTURE,
                    },
                },
            }
        ],
    }


def ensemble_config(
    names: ModelNames, artifact: OnnxArtifact | EngineArtifact, batching: Batching, *, labels: bool
) -> Message:
    """Encoded pictures to the artifact's outputs.

    Args:
        names: Of the models.
        artifact: What is run.
        batching: For the largest batch alone: an ensemble's models are batched, not the ensemble.
        labels: Whether the classes have names.
    """
    (tensor,) = artifact.inputs

    def mapped(*pairs: tuple[str, str]) -> list[Value]:
        return [{"key": key, "value": value} for key, value in pairs]

    steps: list[Value] = [
        {
            "model_name": names.preprocess,
            "model_version": -1,
            "input_map": mapped((PICTURES, PICTURES)),
            "output_map": mapped((tensor.name, "prepared")),
        },
        {
            "model_name": names.network,
            "model_version": -1,
            "input_map": mapped((tensor.name, "prepared")),
            "output_map": mapped(*((spec.name, spec.name) for spec in artifact.outputs)),
        },
    ]
    return {
        **_common(names.pictures, batching),
        "platform": "ensemble",
        "input": [{"name": PICTURES, "data_type": Symbol("TYPE_STRING"), "dims": [1]}],
        "output": _outputs(artifact, labels=labels),
        "ensemble_scheduling": {"step": steps},
        "response_cache": {"enable": True},
    }
