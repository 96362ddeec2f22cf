from __future__ import annotations

import dataclasses

from riformer_deploy.bundle.artifacts import TensorSpec
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings
from riformer_deploy.common.enums import HardwareCompatibility
from riformer_deploy.serving.pbtxt import render
from riformer_deploy.serving.triton_config import (
    Batching,
    ModelNames,
    ensemble_config,
    network_config,
    preprocess_config,
)
from tests.manifests import engine_of, file_record, graph_of
from tests.triton import parsed

NAMES = ModelNames.of("digits")
BATCHING = Batching(largest=32, preferred=(8,), longest_delay_us=500, source="measured")


def test_a_plan_is_picked_by_compute_capability_and_run_with_all_its_profiles() -> None:
    profiles = (BatchProfile(minimum=1, optimum=1, maximum=1), BatchProfile(minimum=1, optimum=8, maximum=32))
    engine = engine_of(profiles=profiles)
    config = parsed(render(network_config(NAMES, engine, BATCHING, labels=False, cached=False)))
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    assert dict(config.cc_model_filenames) == {"8.9": "model.plan"}
    (group,) = config.instance_group
    assert (list(group.profile), group.count) == (["0", "1"], 1)
    anywhere = engine_of(settings=BuildSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS))
    config = parsed(render(network_config(NAMES, anywhere, BATCHING, labels=False, cached=False)))
    assert not config.cc_model_filenames
    assert config.default_model_filename == "model.plan"


def test_types_shapes_batching_and_warm_up_are_all_said() -> None:
    graph = graph_of(file_record("g.onnx"))
    config = parsed(render(network_config(NAMES, graph, BATCHING, labels=True, cached=True)))
    (source,), (target,) = config.input, config.output
    types = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name
    assert (source.name, source.data_type, list(source.dims)) == (
        "images", types["TYPE_FP32"].number, [3, 64, 96]
    )  # fmt: skip
    assert (target.name, list(target.dims), target.label_filename) == ("logits", [2], "labels.txt")
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (32, [8])
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert [item.batch_size for item in config.model_warmup] == [1, 8]
    assert config.version_policy.latest.num_versions == 1
    assert config.response_cache.enable


def test_the_ensemble_joins_what_the_preprocessing_gives_and_the_network_takes() -> None:
    pictures = TensorSpec(name="images", dtype="uint8", shape=("batch", 64, 96, 3))
    outputs = (
        TensorSpec(name="scores", dtype="float16", shape=("batch", 5)),
        TensorSpec(name="labels", dtype="int64", shape=("batch", 5)),
    )
    graph = dataclasses.replace(graph_of(file_record("g.onnx")), inputs=(pictures,), outputs=outputs)
    network = parsed(render(network_config(NAMES, graph, BATCHING, labels=True, cached=False)))
    before = parsed(render(preprocess_config(NAMES, graph, BATCHING)))
    whole = parsed(render(ensemble_config(NAMES, graph, BATCHING, labels=True)))
    (prepared,), (taken,) = before.output, network.input
    assert (prepared.data_type, list(prepared.dims)) == (taken.data_type, list(taken.dims))
    first, second = whole.ensemble_scheduling.step
    assert (first.model_name, second.model_name) == (before.name, network.name)
    assert dict(first.input_map) == {before.input[0].name: whole.input[0].name}
    assert first.output_map[prepared.name] == second.input_map[taken.name]
    assert dict(second.output_map) == {"scores": "scores", "labels": "labels"}
    assert [item.label_filename for item in whole.output] == ["", ""]  # numbers of classes, no scores of all
