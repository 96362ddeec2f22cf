from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from riformer_deploy.api import tune_artifacts
from riformer_deploy.api.tune_artifacts import ArtifactBuilder, TuneSetup
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Group, NormForm
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.progress import silent
from riformer_deploy.system.cuda_driver import Driver


def test_what_the_bundle_holds_is_taken_and_the_rest_is_exported_at_the_opset_that_it_needs(
    tune_setup: TuneSetup, tmp_path: Path
) -> None:
    builder, held = ArtifactBuilder(tune_setup, tmp_path, silent), tune_setup.bundle.manifest.onnx[0]
    same = builder.built(LoweringConfig())
    assert same.graph == held
    assert same.bundle.graph_path(same.graph).parent != tune_setup.bundle.directory
    group = builder.built(LoweringConfig(norm=NormForm.GROUP))
    assert group.graph.opset == 21 > held.opset
    assert group.graph.file.parent_sha256 == tune_setup.bundle.manifest.reference.file.sha256
    assert builder.built(LoweringConfig()) is same


def test_only_the_files_of_the_last_are_kept_and_the_others_are_built_again(
    tune_setup: TuneSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_artifacts, "_KEPT", 1)
    builder = ArtifactBuilder(tune_setup, tmp_path, silent)
    first = builder.built(LoweringConfig())
    builder.built(LoweringConfig(norm=NormForm.GROUP))
    assert len(list(tmp_path.iterdir())) == 1
    again = builder.built(LoweringConfig())
    assert again.graph == first.graph
    assert again.bundle.directory.exists()


def test_an_engine_is_built_with_one_profile_for_each_batch_and_the_machine_s_reason_is_told(
    tune_setup: TuneSetup, tmp_path: Path, no_gpu: Driver
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")
    assert not no_gpu.gpus
    for_engines = dataclasses.replace(tune_setup, group=Group.ENGINE, batches=(4, 1))
    builder = ArtifactBuilder(for_engines, tmp_path, silent)
    built = builder.built(LoweringConfig())
    (engine,) = built.bundle.manifest.engines
    assert [str(profile) for profile in engine.metadata.profiles] == ["1:1:1", "2:4:4"]
    assert engine.file.parent_sha256 == built.graph.file.sha256
    assert built.bundle.path_of(engine.file).exists()
    with pytest.raises(RuntimeFailureError):
        builder.candidate(built)
