from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleConflictError, BundleError, OptionError
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.serving.golden import golden_of
from riformer_deploy.serving.triton_repository import PicturePreprocessing, TritonOptions, write_repository
from tests.manifests import engine_of
from tests.triton import parsed

_ALONE = """
import hashlib, importlib, json, sys, types
import numpy as np

folder, picture = sys.argv[1:]
backend = types.ModuleType("triton_python_backend_utils")
backend.triton_string_to_numpy = lambda name: np.float32
backend.get_input_tensor_by_name = lambda request, name: request
backend.Tensor = lambda name, values: values
backend.InferenceResponse = lambda output_tensors, error=None: output_tensors[0]
sys.modules[backend.__name__] = backend
sys.path.insert(0, folder + "/1")
model = importlib.import_module("model").TritonPythonModel()
config = {"input": [{"name": "pictures"}], "output": [{"name": "images", "data_type": "TYPE_FP32"}]}
model.initialize({"model_repository": folder, "model_version": "1", "model_config": json.dumps(config)})
request = types.SimpleNamespace(as_numpy=lambda: np.array([[open(picture, "rb").read()]], dtype=object))
(images,) = model.execute([request])
ours = {module.__file__ for name, module in sys.modules.items() if name.startswith("riformer_deploy")}
others = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "onnxruntime", "rich"})
print(json.dumps([hashlib.sha256(images.tobytes()).hexdigest(), sorted(ours), others]))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, precise_bundle: Path) -> Path:
    """A repository of the int8 digits; read only."""
    output = tmp_path_factory.mktemp("triton") / "models"
    options = TritonOptions(output=output, precision=Precision.INT8, name="digits")
    report = write_repository(Bundle.open(precise_bundle), options)
    assert report.models == ("digits", "digits-preprocess", "digits-network")
    assert report.artifact == "model.int8.onnx"
    return output


def test_every_model_is_where_its_configuration_says(repository: Path, precise_bundle: Path) -> None:
    names = []
    for path in sorted(repository.glob("*/config.pbtxt")):
        config = parsed(path.read_text(encoding="utf-8"))
        folder = path.parent
        names.append(config.name)
        assert (config.name, config.max_batch_size) == (folder.name, 8)
        assert (folder / "1").is_dir()
        if config.default_model_filename:
            assert (folder / "1" / config.default_model_filename).is_file()
        for sample in config.model_warmup:
            for tensor in sample.inputs.values():
                assert (folder / "warmup" / tensor.input_data_file).is_file()
        for tensor in config.output:
            if tensor.label_filename:
                labels = (folder / tensor.label_filename).read_text(encoding="utf-8").splitlines()
                assert labels == [str(number) for number in range(10)]
    assert names == ["digits", "digits-network", "digits-preprocess"]
    bundle = Bundle.open(precise_bundle)
    (graph,) = [item for item in bundle.manifest.onnx if item.precision is Precision.INT8]
    assert sha256_of(repository / "digits-network" / "1" / "model.onnx") == graph.file.sha256
    warm = np.fromfile(repository / "digits-network" / "warmup" / "golden", np.float32)
    np.testing.assert_array_equal(warm.reshape(3, 64, 64), golden_of(bundle).images[0])
    assert {path.name for path in repository.iterdir()} == {*names, "README.md"}


def test_the_preprocessing_needs_nothing_of_the_toolkit_but_what_lies_beside_it(
    repository: Path, repository_picture: Path, digits_inputs: np.ndarray
) -> None:
    folder = repository / "digits-preprocess"
    program = [sys.executable, "-I", "-B", "-c", _ALONE, str(folder), str(repository_picture)]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert ran.returncode == 0, ran.stderr
    digest, files, others = json.loads(ran.stdout)
    assert digest == sha256_of_array(digits_inputs[0])
    assert files
    assert all(Path(file).is_relative_to(folder) for file in files)
    assert others == []


@pytest.fixture
def repository_picture(tmp_path: Path, digits_data: dict[str, np.ndarray]) -> Path:
    """The first validation image as a file."""
    from PIL import Image  # noqa: PLC0415

    Image.fromarray(digits_data["val_images"][0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def sha256_of_array(values: np.ndarray) -> str:
    """Over its bytes."""
    import hashlib  # noqa: PLC0415

    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def test_a_plan_is_served_as_it_is_and_its_container_named(digits_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(digits_bundle, tmp_path / "my digits"))
    (graph,) = bundle.manifest.onnx
    engine = dataclasses.replace(
        engine_of(b"plan", onnx_sha256=graph.file.sha256), inputs=graph.inputs, outputs=graph.outputs
    )
    (bundle.directory / engine.file.path).write_bytes(b"plan")
    manifest = dataclasses.replace(bundle.manifest, engines=(engine,))
    (bundle.directory / MANIFEST).write_text(dump_json(manifest))
    bundle = Bundle.open(bundle.directory)
    output = tmp_path / "new" / "models"
    options = TritonOptions(output=output, group=Group.ENGINE, preprocess=PicturePreprocessing.NONE)
    report = write_repository(bundle, options)
    assert report.models == ("my-digits-network",)
    assert (output / "my-digits-network" / "1" / "model.plan").read_bytes() == b"plan"
    config = parsed((output / "my-digits-network" / "config.pbtxt").read_text())
    assert (config.max_batch_size, config.response_cache.enable) == (32, True)
    assert "tritonserver:26.05-py3" in report.command
    assert "pip" not in report.command
    readme = (output / "README.md").read_text()
    assert "26.05-py3" in readme
    assert report.notes[0] in readme
    (bundle.directory / engine.file.path).write_bytes(b"other")
    with pytest.raises(BundleError, match="not the file that the bundle recorded"):
        write_repository(Bundle(bundle.directory, bundle.manifest), dataclasses.replace(options, force=True))
    assert (output / "my-digits-network" / "1" / "model.plan").read_bytes() == b"plan"
    assert [path.name for path in output.parent.iterdir()] == ["models"]


def test_only_a_repository_of_ours_is_replaced_and_only_when_asked(
    digits_bundle: Path, tmp_path: Path
) -> None:
    bundle, output = Bundle.open(digits_bundle), tmp_path / "models"
    options = TritonOptions(output=str(output), preprocess=PicturePreprocessing.NONE, name="a")
    output.mkdir()
    write_repository(bundle, options)  # into an empty folder
    with pytest.raises(BundleConflictError, match="exists already"):
        write_repository(bundle, options)
    write_repository(bundle, dataclasses.replace(options, name="b", force=True))
    assert {path.name for path in output.iterdir()} == {"README.md", "b-network"}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(BundleConflictError, match="no repository"):
        write_repository(bundle, dataclasses.replace(options, output=tmp_path / "photos", force=True))
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_what_is_no_name_or_nothing_that_triton_runs_is_refused() -> None:
    with pytest.raises(OptionError, match="no name of a model"):
        TritonOptions(output="x", name="../up")
    with pytest.raises(OptionError, match="not torch"):
        TritonOptions(output="x", group=Group.TORCH)
    with pytest.raises(OptionError, match="other pixels than accuracy was measured with"):
        TritonOptions(output="x", preprocess=PicturePreprocessing.DALI)


def test_a_graph_that_does_not_stand_by_itself_is_not_served(digits_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(Path(shutil.copytree(digits_bundle, tmp_path / "bundle")))
    graph = bundle.manifest.onnx[0]
    renamed = dataclasses.replace(graph.file, path="model.fp32.ort")  # a runtime may look for a second file
    (bundle.directory / graph.file.path).rename(bundle.directory / renamed.path)
    manifest = dataclasses.replace(bundle.manifest, onnx=(dataclasses.replace(graph, file=renamed),))
    (bundle.directory / MANIFEST).write_text(dump_json(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=r"expected a name in \.onnx"):
        write_repository(Bundle.open(bundle.directory), TritonOptions(output=tmp_path / "models"))
    assert not (tmp_path / "models").exists()


def test_names_of_others_are_written_as_text_and_a_folder_of_any_name_is_quoted(
    digits_bundle: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(digits_bundle)
    names = ("a\udcff\nb", *(str(number) for number in range(9)))
    model = dataclasses.replace(bundle.manifest.model, class_names=names)
    odd = Bundle(digits_bundle, dataclasses.replace(bundle.manifest, model=model))
    output = tmp_path / "my models\x1b[31m"
    report = write_repository(odd, TritonOptions(output=output, name="digits"))
    labels = (output / "digits-network" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == ["a\\udcff b", *names[1:]]
    assert f" '{output.resolve()}:/models:ro' " in report.command
    assert "\x1b" not in (output / "README.md").read_text(encoding="utf-8")
