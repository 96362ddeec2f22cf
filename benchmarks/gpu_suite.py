"""Everything that needs an NVIDIA GPU, in one command, with whatever is installed, in under nine minutes.

Run from a plain checkout, without network: ``PYTHONPATH=. python benchmarks/gpu_suite.py``. What is missing
is named in the result and left out; what no longer fits into ``--minutes`` likewise. Without a GPU it
writes nothing and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from _common import RESULTS, naive_export, random_state
from _roofline import floor_ms, measure_ceiling, need_of
from _suite import Suite, judge, medians

from riformer_deploy.architecture import Form
from riformer_deploy.bench import BenchOptions, measure_latency
from riformer_deploy.budgets import BUDGETS, changed_budgets
from riformer_deploy.build_options import BuildOptions
from riformer_deploy.bundles import Bundle
from riformer_deploy.choices import DeviceLayer, NormForm, Precision
from riformer_deploy.cuda_driver import query_driver
from riformer_deploy.devices.opening import open_device
from riformer_deploy.engines import build_engines
from riformer_deploy.export import DEFAULT_OPSET
from riformer_deploy.fusion import fold, fuse
from riformer_deploy.images import synthetic_images
from riformer_deploy.lineup import Group, line_up
from riformer_deploy.model import RIFormer, model_from_state
from riformer_deploy.optional import installed_version
from riformer_deploy.passports import Backend, BatchProfile, BuildSettings, Passport
from riformer_deploy.pipeline import ExportOptions, export_checkpoint
from riformer_deploy.precision import GROUP_NORM_OPSET, PrecisionOptions
from riformer_deploy.proofs import prove_parity
from riformer_deploy.records import JsonValue, to_jsonable
from riformer_deploy.results import Inputs, LatencyResult, Timing
from riformer_deploy.runtimes.base import Contestant, Runtime
from riformer_deploy.runtimes.engine import EngineRuntime
from riformer_deploy.runtimes.pytorch_cuda import CudaPyTorchRuntime
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.building import BuildRequest, build_plan
from riformer_deploy.variants import VARIANTS, Variant

_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_ALL = (Precision.FP32, Precision.FP16, Precision.INT8)
_MATRIX_TYPES = {Precision.FP32: "float32", Precision.FP16: "float16", Precision.INT8: "int8"}
_WEIGHT_BYTES = {Precision.FP32: 4, Precision.FP16: 2, Precision.INT8: 1}
_MAP_BYTES = {Precision.FP32: 4, Precision.FP16: 2, Precision.INT8: 2}  # int8 models have a half base
_ABLATION_BATCH = 64
_GRACE_S = 25.0


@dataclass(kw_only=True)
class _Run:
    """One run of the suite.

    Attributes:
        suite: What it finds.
        folder: For bundles.
        variant: The published model whose speed is measured; its weights are random.
        batches: Ascending.
        backends: The flavours of TensorRT that are installed.
        timed: Latencies of the default norm form by batch size.
    """

    suite: Suite
    folder: Path
    variant: Variant
    batches: list[int]
    backends: list[Backend]
    timed: dict[int, LatencyResult] = field(default_factory=dict)

    def _export(self, checkpoint: Path, norm: NormForm, precisions: tuple[Precision, ...]) -> Path:
        """A bundle; random weights are far from int8's budget, so only the trained digits are held to it."""
        trained = checkpoint.parent == _EXAMPLES
        report = export_checkpoint(
            ExportOptions(
                checkpoint=checkpoint,
                output=self.folder / f"{checkpoint.stem}-{norm}",
                image_size_px=(64, 64) if trained else None,
                precisions=precisions,
                lowering=PrecisionOptions(norm=norm, int8_base=Precision.FP16),
                opset=max(DEFAULT_OPSET, GROUP_NORM_OPSET) if norm is NormForm.GROUP else DEFAULT_OPSET,
                calibration=str(_EXAMPLES / "digits" / "calibration") if trained else "random",
                budgets=BUDGETS if trained else changed_budgets(min_sqnr_db=5.0, stage_relative_l2=1.0),
            )
        )
        if report.bundle is None:
            raise RuntimeError(f"parity of {checkpoint.stem} failed on the CPU, so there is no bundle")
        return Path(report.bundle)

    def _build(self, bundle: Path, profiles: tuple[BatchProfile, ...]) -> None:
        """Engines of every backend that is installed."""
        for backend in self.backends:
            with self.suite.stage(f"build {bundle.name} with {backend.label}"):
                report = build_engines(bundle, BuildOptions(backend=backend, profiles=profiles))
                self.suite.engines += [
                    {
                        "bundle": bundle.name,
                        "engine": engine.file.path,
                        "size_bytes": engine.file.size_bytes,
                        "build_ms": engine.passport.build_ms,
                        "layers": engine.passport.engine_layers,
                    }
                    for engine in report.engines
                ]

    def _prove(self, bundle: Path) -> None:
        """Every engine against the float64 reference, plain and as a CUDA graph."""
        with self.suite.stage(f"parity of {bundle.name}"):
            opened = Bundle.open(bundle)
            proof = prove_parity(opened, BUDGETS, groups=(Group.ENGINE,))
            self.suite.proofs[bundle.name] = proof
            self.suite.left_out += [f"{bundle.name}: {item.name}: {item.reason}" for item in proof.skipped]

    def _time(self, what: str, entered: list[Contestant], batch: int) -> LatencyResult | None:
        """One batch size of a line-up; the raw samples are kept."""
        result = None
        size = (self.variant.image_size_px,) * 2
        with self.suite.stage(f"latency of {what}, batch {batch}"):
            result = measure_latency(
                entered,
                synthetic_images(batch, size, seed=0),
                Inputs(description="synthetic", image_size_px=size, batches=(batch,), seed=0),
                BenchOptions(batches=(batch,), rounds=10, repeats=5, warmup=5),
            )
            self.suite.latency.append((what, result))
            self.suite.left_out += [f"{what}, {item.name}: {item.reason}" for item in result.skipped]
        return result

    def digits(self) -> None:
        """The trained model: engines that must hold their budgets."""
        with self.suite.stage("export the digits model"):
            bundle = self._export(_EXAMPLES / "riformer-digits.pth", NormForm.INSTANCE, _ALL)
            self._build(bundle, (BatchProfile(minimum=1, optimum=8, maximum=32),))
            self._prove(bundle)

    @property
    def _profiles(self) -> tuple[BatchProfile, ...]:
        most = self.batches[-1]
        single = BatchProfile(minimum=1, optimum=1, maximum=1)
        return (single, BatchProfile(minimum=2, optimum=most, maximum=most)) if most > 1 else (single,)

    def latency(self, checkpoint: Path) -> None:
        """The matrix: engines of every precision and their rivals; the first and last batch first."""
        exported: list[Path] = []
        with self.suite.stage(f"export {checkpoint.stem}"):
            exported.append(self._export(checkpoint, NormForm.INSTANCE, _ALL))
        for bundle in exported:  # none where that went wrong
            self._matrix(bundle)

    def _matrix(self, bundle: Path) -> None:
        self._build(bundle, self._profiles)
        needed_s = 60.0
        for batch in dict.fromkeys((self.batches[0], self.batches[-1], *self.batches)):
            if not self.suite.fits(f"latency, batch {batch}", needed_s):
                continue
            start = time.monotonic()
            lineup = line_up(Bundle.open(bundle), (Group.GPU, Group.ENGINE))
            self.suite.left_out += [f"{item.name}: {item.reason}" for item in lineup.skipped]
            result = self._time(self.variant.name, list(lineup.entered), batch)
            needed_s = 1.2 * (time.monotonic() - start)
            if result is not None:
                self.timed[batch] = result
        if self.suite.fits(f"parity of {bundle.name}", 30):
            self._prove(bundle)

    def norm_forms(self, checkpoint: Path) -> None:
        """The other norm forms in half precision."""
        for norm in (NormForm.GROUP, NormForm.MOMENTS):
            if not self.suite.fits(f"norm form {norm}", 40):
                continue
            with self.suite.stage(f"norm form {norm}"):
                bundle = self._export(checkpoint, norm, (Precision.FP16,))
                self._build(bundle, self._profiles)
                for batch in dict.fromkeys((self.batches[0], self.batches[-1])):
                    entered = line_up(Bundle.open(bundle), (Group.ENGINE,)).entered
                    self._time(f"{self.variant.name}, norm form {norm}", list(entered), batch)

    def roofline(self) -> None:
        """Every engine's kernels beside the floor of its GPU."""
        with self.suite.stage("roofline"):
            ceiling = measure_ceiling()
            rows: list[JsonValue] = []
            for batch, result in self.timed.items():
                for name, took_ms in medians(result, Timing.COMPUTE).items():
                    precision = next((p for p in _MATRIX_TYPES if f" {p}" in name), None)
                    if precision is None or "TensorRT" not in name:
                        continue
                    size = self.variant.image_size_px
                    stored = (_WEIGHT_BYTES[precision], _MAP_BYTES[precision])
                    need = need_of(self.variant.architecture, size, batch, *stored)
                    least_ms = floor_ms(need, ceiling, _MATRIX_TYPES[precision])
                    rows.append(
                        {
                            "model": self.variant.name,
                            "engine": name,
                            "batch": batch,
                            "kernels_ms": took_ms,
                            "floor_ms": least_ms,
                            "share_of_floor": least_ms / took_ms,
                            "need": to_jsonable(need),
                        }
                    )
            self.suite.ceilings.append(to_jsonable(ceiling))
            self.suite.roofline += rows

    def ablation(self, model: RIFormer) -> None:
        """What fusing and folding bring, in PyTorch and in engines of the plain export."""
        forms = {"training": model, "deploy": fuse(model), "folded": fold(model)}
        batch = min(_ABLATION_BATCH, self.batches[-1])
        if self.suite.fits("ablation, eager", 15):
            self._time(
                "ablation, eager", [_as_module(*item, compiled=False) for item in forms.items()], batch
            )
        for backend in self.backends:
            if self.suite.fits(f"ablation, {backend.label}", 40):
                with self.suite.stage(f"ablation, {backend.label}"):
                    plain = [self._as_engine(*item, backend, batch) for item in forms.items()]
                    self._time(f"ablation, {backend.label}", plain, batch)
        if self.suite.fits("ablation, compiled", 90):
            self._time(
                "ablation, compiled", [_as_module(*item, compiled=True) for item in forms.items()], batch
            )

    def _as_engine(self, name: str, form: RIFormer, backend: Backend, batch: int) -> Contestant:
        """The engine of what ``torch.onnx.export`` makes of a form in float32, without this toolkit."""
        trt, side = load(backend), self.variant.image_size_px
        path = naive_export(form, self.folder / f"{name}.{backend}.onnx", side)
        profile, settings = BatchProfile(minimum=1, optimum=batch, maximum=batch), BuildSettings()
        request = BuildRequest(
            onnx=path,
            input_name="images",
            sample_shape=(3, side, side),
            profiles=(profile,),
            settings=settings,
        )
        built = build_plan(trt, request, lambda _step: None, lambda _severity, _text: None)
        plan = path.with_suffix(".engine")
        plan.write_bytes(built.plan)
        passport = Passport(
            backend=backend, backend_version=trt.version, backend_cuda=trt.cuda, onnx_sha256="",
            weights_sha256="", driver_cuda=None, gpu=None, gpu_compute_capability=None, profiles=(profile,),
            settings=settings, build_ms=built.build_ms, network_layers={}, engine_layers=None,
        )  # fmt: skip

        def start() -> Runtime:
            return EngineRuntime(plan, passport, trt, open_device(DeviceLayer.CUDA_PYTHON), cuda_graphs=True)

        title = f"{backend.label} fp32, {name} form, plain export, CUDA graph"
        return Contestant(name=title, precision=Precision.FP32, artifact_sha256="", open=start)


def _as_module(name: str, form: RIFormer, *, compiled: bool) -> Contestant:
    """A form in half precision; the runtime gets a copy, which it moves and casts."""

    def start() -> Runtime:
        copy = model_from_state(form.architecture, form.form, form.state_dict())
        return CudaPyTorchRuntime(copy, dtype=torch.float16, compiled=compiled)

    title = f"PyTorch float16, {name} form, {'compiled' if compiled else 'eager'}"
    return Contestant(name=title, precision=Precision.FP16, artifact_sha256="", open=start)


def _run(suite: Suite, variants: list[Variant], batches: list[int], folder: Path) -> dict[str, JsonValue]:
    """The stages, the most wanted first; the targets are the first variant's."""
    backends = [backend for backend in Backend if installed_version(backend.module) is not None]
    suite.left_out += [f"{backend.label} is not installed" for backend in Backend if backend not in backends]
    runs = [
        _Run(suite=suite, folder=folder, variant=variant, batches=batches, backends=backends)
        for variant in variants
    ]
    runs[0].digits()
    for number, run in enumerate(runs):
        if number and not suite.fits(run.variant.name, 120):
            continue
        state = random_state(run.variant.architecture)
        checkpoint = folder / f"{run.variant.name}.pth"
        torch.save({"state_dict": state}, checkpoint)
        run.latency(checkpoint)
        run.roofline()
        run.norm_forms(checkpoint)
        if not number:
            run.ablation(model_from_state(run.variant.architecture, Form.TRAINING, state))
    return judge(runs[0].timed, suite.proofs, batches)


def _give_up(suite: Suite) -> None:
    """A stage that hangs, or runs far past the deadline, ends the suite; what was found is written."""
    suite.left_out.append("the suite was ended: its last stage ran past the deadline")
    suite.write({"finished": "no: see what was left out"})
    print("ended: past the deadline", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> int:
    """Parse the selection, run it, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--variants", nargs="+", default=["riformer-s12_in1k"], choices=sorted(VARIANTS), metavar="NAME"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--minutes", type=float, default=8.5, help="no stage begins that would pass this")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "gpu_suite.json")
    arguments = parser.parse_args()
    driver = query_driver()
    if not driver.gpus:
        print(f"there is no NVIDIA GPU here: {driver.problem}; nothing was measured", file=sys.stderr)
        return 1
    if not arguments.output.parent.is_dir():
        parser.error(f"there is no folder {arguments.output.parent}")
    suite = Suite(deadline=time.monotonic() + 60 * arguments.minutes, out=arguments.output)
    overdue = threading.Timer(60 * arguments.minutes + _GRACE_S, _give_up, args=(suite,))
    overdue.daemon = True
    overdue.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            variants = [VARIANTS[name] for name in dict.fromkeys(arguments.variants)]
            targets = _run(suite, variants, sorted(set(arguments.batches)), Path(folder))
    finally:
        overdue.cancel()
    suite.write(targets)
    print(json.dumps({"targets": targets, "left_out": list(dict.fromkeys(suite.left_out))}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
