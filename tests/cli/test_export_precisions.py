"""``export``'s options of precision, calibration and form: each reaches the bundle, or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from riformer_deploy.api.export import ExportReport
from riformer_deploy.api.inspect import BundleInspection
from riformer_deploy.bundle.lowering_config import CalibrationRecord, LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import InputForm, Method, MlpForm, NormForm, OutputForm, Precision
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.results import Status
from riformer_deploy.quantization.sensitivity import SensitivityReport

Run = Callable[..., CompletedProcess[str]]
Export = Callable[..., CompletedProcess[str]]


def _pictures(folder: Path, count: int) -> Path:
    """``count`` pictures of noise, 64x48 px."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 64, 48, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


def _arrays(path: Path, **arrays: tuple[int, ...]) -> Path:
    """An ``.npz`` of noise, (N, H, W, 3) uint8, and of zeros where a shape is not that."""
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        name: rng.integers(0, 256, shape, dtype=np.uint8) if len(shape) == 4 else np.zeros(shape, int)
        for name, shape in arrays.items()
    }
    np.savez(path, **values)
    return path


@pytest.fixture
def export(cli: Run, tmp_path: Path, tiny_checkpoint: Path) -> Export:
    """``export(*options)``: the tiny model at 64x48 px into the test's folder ``out``."""

    def run(*options: str | Path) -> CompletedProcess[str]:
        return cli("export", tiny_checkpoint, "-o", tmp_path / "out", "--image-size", "64x48", *options)

    return run


@pytest.mark.slow
def test_every_choice_reaches_the_graphs_and_the_manifest(export: Export, cli: Run, tmp_path: Path) -> None:
    pictures = _pictures(tmp_path / "pictures", 8)
    (pictures / "broken.png").write_bytes(b"no picture")
    choices = (
        "--method",
        "max",
        "--int8-base",
        "fp16",
        "--no-equalize",
        "--residual-blocks",
        "backbone.network.4",
    )
    forms = (
        "--norm-form",
        "layer",
        "--norm-io",
        "fp16",
        "--mlp",
        "matmul",
        "--input",
        "uint8",
        "--output-form",
        "topk=3",
        "--io-dtype",
        "fp16",
    )
    excluded = ("--exclude-layers", "head", "--exclude-layers", "stem")
    precisions = ("--precision", "fp16", "--precision", "int8")
    ran = export(*precisions, "--calibration", pictures, "--skip-bad", *choices, *forms, *excluded, "--json")
    assert ran.returncode == 0, ran.stderr
    notes = [line for line in ran.stderr.splitlines() if line.startswith("note: ")]
    assert [text for text in notes if "skipped: " in text and "broken.png" in text]
    assert [text for text in notes if "only 8 calibration images; 64 or more are advised" in text]
    half, int8 = Bundle.open(tmp_path / "out").manifest.onnx
    assert (half.precision, int8.precision) == (Precision.FP16, Precision.INT8)
    assert int8.lowering.calibration is not None
    assert int8.lowering == LoweringConfig(
        precision=Precision.INT8,
        norm=NormForm.LAYER,
        norm_io=Precision.FP16,
        mlp=MlpForm.MATMUL,
        int8_base=Precision.FP16,
        method=Method.MAX,
        equalize=False,
        quantize_residual=True,
        residual_blocks=("backbone.network.4",),
        exclude_layers=("head.fc", "backbone.patch_embed.proj"),
        io=Precision.FP16,
        input_form=InputForm.UINT8,
        output_form=OutputForm.TOPK,
        topk=3,
        calibration=CalibrationRecord(
            source="pictures", random=False, images=8, key=int8.lowering.calibration.key, method=Method.MAX
        ),
        ranges=int8.lowering.ranges,
        residual_ranges=int8.lowering.residual_ranges,
    )
    assert (len(int8.lowering.ranges), len(int8.lowering.residual_ranges)) == (4 + 2 * 5 - 1, 2 * 2)
    for artifact in (half, int8):
        (images,) = artifact.inputs
        assert (images.dtype, images.shape) == ("uint8", ("batch", 64, 48, 3))
        assert [(spec.name, spec.dtype, spec.shape) for spec in artifact.outputs] == [
            ("scores", "float16", ("batch", 3)),
            ("labels", "int64", ("batch", 3)),
        ]
        graph = onnx.load(tmp_path / "out" / artifact.file.path).graph
        operators = {node.op_type for node in graph.node}
        assert "InstanceNormalization" not in operators
        assert {"LayerNormalization", "MatMul"} < operators
    told = " ".join(cli("inspect", tmp_path / "out").stdout.replace("│", " ").split())
    assert "norms' inputs and outputs fp16; mlp matmul; inputs and outputs fp16" in told


def test_random_calibration_is_marked_in_report_bundle_and_inspect(
    export: Export, cli: Run, tmp_path: Path
) -> None:
    forms = ("--norm-form", "group", "--opset", "21", "--batch", "2")
    ran = export("--precision", "int8", "--calibration", "random", *forms)
    assert ran.returncode == 0, ran.stderr
    assert "note: the calibration images are random: accuracy on real images is not known" in ran.stderr
    text = cli("inspect", tmp_path / "out")
    assert text.returncode == 0
    told = " ".join(text.stdout.replace("│", " ").split())
    assert "calibrated on 64 RANDOM images: accuracy is not known, mse scales" in told
    assert "opset 21; norm group; normalised input; logits output; the rest fp32" in told
    found = load_json(BundleInspection, cli("inspect", tmp_path / "out", "--json").stdout)
    (record,) = [item.lowering.calibration for item in found.manifest.onnx]
    assert record is not None
    assert record.random
    alone = json.loads(cli("inspect", tmp_path / "out" / "model.int8.onnx", "--json").stdout)
    assert "random" in alone["provenance"]["calibration"]


@pytest.mark.slow
def test_fp8_reaches_the_graph_the_manifest_and_inspect(export: Export, cli: Run, tmp_path: Path) -> None:
    excluded = "backbone.network.0.0.mlp.fc2"
    images = _arrays(tmp_path / "noise.npz", images=(64, 64, 48, 3))
    asked = ("--exclude-layers", excluded, "--input", "uint8", "--batch", "2")
    ran = export("--precision", "fp8", "--calibration", images, *asked)
    assert ran.returncode == 0, ran.stderr
    assert "histograms" not in ran.stderr
    (artifact,) = Bundle.open(tmp_path / "out").manifest.onnx
    record = artifact.lowering
    assert (record.precision, record.base, record.exclude_layers) == (
        Precision.FP8,
        Precision.FP16,
        (excluded,),
    )
    assert record.calibration is not None
    assert record.calibration.method is Method.MAX
    told = " ".join(cli("inspect", tmp_path / "out").stdout.replace("│", " ").split())
    assert (
        f"the rest fp16; {excluded} excluded, in fp16; calibrated on 64 images of noise.npz, max scales"
        in told
    )
    found = json.loads(cli("inspect", tmp_path / "out" / "model.fp8.onnx", "--json").stdout)
    counts = {(node["op_type"], node["dtype"]): node["count"] for node in found["nodes"]}
    assert counts["QuantizeLinear", "float8_e4m3fn"] == 2 * 5 - 1
    assert found["provenance"]["precision"] == "fp8"


def test_a_gate_names_what_it_excludes_and_one_that_cannot_hold_exits_1_with_nothing_written(
    export: Export, cli: Run, tmp_path: Path, tiny_bundle: Path
) -> None:
    given = ("--calibration", _arrays(tmp_path / "noise.npz", images=(16, 64, 48, 3)))
    ranked = load_json(SensitivityReport, cli("sensitivity", tiny_bundle, *given, "--json").stdout)
    assert ranked.everything.sqnr_db is not None
    int8 = ("--precision", "int8", *given, "--batch", "2")
    ran = export(*int8, "--min-sqnr", "150", "--max-drop", "100")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "int8 cannot hold the gate, even with every layer excluded" in ran.stderr
    assert "Loosen --min-sqnr or --max-drop" in ran.stderr
    assert not (tmp_path / "out").exists()

    ran = export(*int8, "--min-sqnr", str(ranked.everything.sqnr_db + 1), "--json")
    assert ran.returncode == 0, ran.stderr
    assert load_json(ExportReport, ran.stdout).status is Status.PASSED
    (note,) = [line for line in ran.stderr.splitlines() if line.startswith("note: the gate of int8 holds")]
    (artifact,) = Bundle.open(tmp_path / "out").manifest.onnx
    excluded = artifact.lowering.exclude_layers
    assert ranked.layers[0].layer in excluded
    assert len(excluded) < len(ranked.layers) / 2
    assert all(name in note for name in excluded)
    record = artifact.lowering.calibration
    assert record is not None
    assert (record.source, record.random, record.images, record.method) == ("noise.npz", False, 16, "mse")
    assert set(artifact.lowering.smoothquant_scales) | set(excluded) >= {
        f"backbone.network.{index}.proj" for index in (1, 3, 5)
    }


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--precision", "fp4"), 2, "'fp4' is not one of 'fp32', 'fp16', 'bf16', 'int8', 'fp8'"),
        (("--precision", "fp8"), 2, "fp8 needs calibration images"),
        (("--precision", "fp8", "--opset", "18"), 2, "fp8 (float8, with scales in half) needs opset 19"),
        (
            ("--precision", "fp8", "--method", "mse"),
            2,
            "mse is for int8; fp8's ranges are those of the largest values",
        ),
        (("--precision", "fp8", "--residual-form", "results"), 2, "of residual additions can be int8 alone"),
        (
            ("--precision", "fp8", "--int8-base", "fp32"),
            2,
            "--int8-base: it is for int8; that of fp8 is fp16",
        ),
        (("--precision", "fp8", "--no-equalize"), 2, "downsampling layers are quantised to int8 alone"),
        (("--exclude-layers", "head.fc"), 2, "These options have no effect on fp32"),
        (
            ("--precision", "fp8", "--precision", "int8", "--method", "percentile"),
            2,
            "int8 needs calibration images",  # the options themselves are taken
        ),
        (("--precision", "fp16", "--precision", "int8"), 2, "int8 needs calibration images"),
        (("--precision", "bf16"), 2, "bf16 (convolutions in bfloat16) needs opset 22"),
        (("--norm-form", "group"), 2, "norm form group needs opset 21"),
        (("--norm-form", "rms"), 2, "'rms' is not one of 'instance', 'group', 'layer', 'moments'"),
        (("--mlp", "gemm"), 2, "'gemm' is not one of 'conv', 'matmul'"),
        (("--norm2", "none"), 2, "'none' is not one of 'explicit', 'folded'"),
        (("--norm-io", "int8"), 2, "'int8' is not one of 'fp32', 'fp16', 'bf16'"),
        (("--norm-io", "fp16"), 2, "norms in fp16 need it as the base, and that is fp32"),
        (("--input", "float"), 2, "'float' is not one of 'normalised', 'uint8'"),
        (("--io-dtype", "bf16"), 2, "'bf16' is not one of 'fp32', 'fp16'"),
        (("--io-dtype", "fp16"), 2, "inputs and outputs in fp16 round more than the tolerance of fp32"),
        (("--output-form", "classes"), 2, "say logits, probabilities, features or topk=K"),
        (("--output-form", "topk=0"), 2, "'topk=0' is no output"),
        (("--output-form", "topk=8"), 2, "topk 8 of 7 classes"),
        (("--min-sqnr", "40"), 2, "--min-sqnr and --max-drop choose layers of int8 and fp8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_honoured_is_refused_before_any_work(
    export: Export, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    ran = export(*options)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in " ".join(ran.stderr.split())
    assert "exporting" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--method", "guess"), 2, "'guess' is not one of 'max', 'mse', 'percentile', 'entropy'"),
        (("--int8-base", "int8"), 2, "'int8' is not one of 'fp32', 'fp16'"),
        (
            ("--int8-base", "fp16", "--opset", "18"),
            2,
            "int8 with fp16 as its base (scales in half) needs opset",
        ),
        (("--exclude-layers", "tail"), 2, "no layer, block, stage or group is called tail"),
        (("--norm2", "folded"), 2, "norm2 folded into fc1 gives fc1 what the norm takes"),
        (("--min-sqnr", "nan"), 2, "min-sqnr is in decibels, got nan"),
        (("--max-drop", "101"), 2, "max-drop is a share in percent, got 101"),
        (("--calibration", "absent"), 41, "There is no calibration data at absent"),
        (("--calibration", "empty"), 41, "empty holds no pictures"),
        (("--calibration", "mixed"), 41, "1 of the 3 files in mixed cannot be used"),
        (("--calibration", "oblong.npz"), 41, "images (8, 48, 64, 3) uint8 is not what the model takes"),
        (("--calibration", "labelled.npz"), 41, "labelled.npz holds labels beside its images (labels)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_int8_that_cannot_be_made_as_asked_is_refused_and_nothing_written(
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (_pictures(tmp_path / "mixed", 2) / "broken.png").write_bytes(b"no picture")
    _arrays(tmp_path / "oblong.npz", images=(8, 48, 64, 3))
    _arrays(tmp_path / "labelled.npz", images=(8, 64, 48, 3), labels=(8,))
    before = sorted(tmp_path.rglob("*"))
    ran = export("--precision", "int8", "--calibration", "random", *options)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in " ".join(ran.stderr.split())
    assert "broken.png" in ran.stderr or "mixed" not in said
    assert "exporting" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before
