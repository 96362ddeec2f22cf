"""The GPU suite's stages, the most valuable first."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _ablation
import torch
from _candidates import Entry, baselines_of, belongs_beside
from _copies import copy_rates
from _floors import floor_rows
from _forms import DEFAULT, DIGITS, FORMS, bundle_name
from _loading import targets_tried, try_loading
from _roofline import Ceiling, measure_ceiling
from _suite import CandidateFacts, Suite, Timed

from riformer_deploy.api.bench import BenchOptions
from riformer_deploy.api.build import BatchProfile, BuildOptions, TensorRTFlavor, build_engines
from riformer_deploy.api.parity import measure_parity
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.gpu_candidates import DEVICE_LAYERS
from riformer_deploy.backends.gpu_options import GpuOptions

# Internals: chosen candidates are measured beside each other; api measures what one bundle holds.
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.common.enums import Baselines, DeviceLayer, Group, Precision, RuntimeKind
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.results import InputImages
from riformer_deploy.evaluation.tolerances import TOLERANCES
from tests.fakes.standin.installing import standing_in


@dataclass(kw_only=True)
class Run:
    """One run of the suite.

    Attributes:
        suite: What it finds.
        folder: Of bundles; read only.
        scratch: For copies that engines are built into.
        variants: The models whose speed is measured, the most important first.
        batches: Ascending.
        awaited: Tells whether bundles may still appear in the folder.
        runnable: Flavors whose engines load on this GPU.
        ceiling: The GPU's rates.
    """

    suite: Suite
    folder: Path
    scratch: Path
    variants: list[str]
    batches: list[int]
    awaited: Callable[[], bool]
    runnable: list[TensorRTFlavor] = field(default_factory=list)
    ceiling: Ceiling | None = None
    _built: set[tuple[str, tuple[Precision, ...], TensorRTFlavor]] = field(default_factory=set)

    def everything(self) -> None:
        """All stages in order."""
        main, smallest, largest = self.variants[0], self.batches[0], self.batches[-1]
        self.device_layers()
        self.stand_in()
        self.loading()
        self.parity()
        for batch in dict.fromkeys((smallest, largest)):
            self.latency(main, Precision.FP16, batch)
            self.roofline()  # cheap, and then a suite that is cut off has it
        for precision in (Precision.INT8, Precision.FP8, Precision.FP32, Precision.BF16):
            self.latency(main, precision, largest)
        self.ablation()
        for batch in dict.fromkeys((largest, smallest)):
            self.latency(main, Precision.FP16, batch, Baselines.STRONG)
        for batch in self.batches[1:-1]:
            self.latency(main, Precision.FP16, batch)
        for variant in self.variants[1:]:
            self.latency(variant, Precision.FP16, largest)
        self.roofline()

    def _bundle(self, name: str) -> Path | None:
        """A bundle, waited for where it may still appear; where there is none, that is noted."""
        path = self.folder / name
        while not (path / MANIFEST).exists():
            if not self.awaited() or self.suite.left_s() < 30:
                self.suite.left_out.append(f"{name}: there is no such bundle")
                return None
            time.sleep(0.5)
        return path

    def device_layers(self) -> None:
        """What every device layer copies, and how fast."""
        for layer in DeviceLayer:
            if installed_version(DEVICE_LAYERS[layer]) is None:
                self.suite.left_out.append(f"device layer {layer}: it is not installed")
                continue
            with self.suite.stage(f"device layer {layer}"):
                device = open_device(layer)
                try:
                    self.suite.devices.append({"layer": str(layer), **copy_rates(device)})
                finally:
                    device.close()

    def stand_in(self) -> None:
        """Engines of the stand-in: our whole path on this GPU, by PyTorch's kernels."""
        bundle = self._bundle(DIGITS)
        if bundle is None:
            return
        with self.suite.stage("the stand-in for TensorRT"), self._standing_in():
            copy = self._copy(bundle, "standin")
            profile = BatchProfile(minimum=1, optimum=8, maximum=16)
            build_engines(copy, BuildOptions(backend=TensorRTFlavor.TENSORRT, profiles=(profile,)))
            self.suite.standin[DIGITS] = measure_parity(Bundle.open(copy), TOLERANCES, groups=(Group.ENGINE,))

    def _standing_in(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.suite.dry else standing_in("cuda")

    def _copy(self, bundle: Path, title: str) -> Path:
        return Path(shutil.copytree(bundle, self.scratch / f"{bundle.name}.{title}"))

    def loading(self) -> None:
        """Which flavors' engines load here, for which target; the others are not built again."""
        bundle = self._bundle(DIGITS)
        if bundle is None:
            return
        for backend in TensorRTFlavor:
            if installed_version(backend.module) is None:
                self.suite.left_out.append(f"{backend.label} is not installed")
                continue
            for targets in targets_tried(backend):
                with self.suite.stage(f"{backend.label}, targets {', '.join(targets) or 'default'}"):
                    row, ran = try_loading(bundle, self.scratch, backend, targets)
                    self.suite.loading.append(row)
                    if ran and backend not in self.runnable:
                        self.runnable.append(backend)

    def parity(self) -> None:
        """Engines of the trained digits against the float64 reference, plain and as a CUDA graph."""
        bundle = self._bundle(DIGITS)
        if bundle is None:
            return
        with self.suite.stage("parity of the digits"):
            copy = self._engines(bundle, (BatchProfile(minimum=1, optimum=8, maximum=32),), ())
            opened = Bundle.open(copy)
            self._compare(DIGITS, opened, Group.ENGINE)
        with self.suite.stage("parity of the digits in ONNX Runtime"):
            self._compare(f"{DIGITS}, ONNX Runtime CUDA", Bundle.open(bundle), Group.GPU)

    def _compare(self, title: str, bundle: Bundle, group: Group) -> None:
        """Each group by itself: a model that does not open ends a parity report."""
        gpu = GpuOptions(baselines=Baselines.NONE)  # each would be compiled for every batch size
        result = measure_parity(bundle, TOLERANCES, groups=(group,), gpu=gpu)
        self.suite.parity[title] = result
        self.suite.left_out += [f"{title}: {item.name}: {item.reason}" for item in result.skipped]

    def _engines(
        self, bundle: Path, profiles: tuple[BatchProfile, ...], precisions: tuple[Precision, ...]
    ) -> Path:
        """The bundle with engines of every flavor that runs here; none named means every precision."""
        copy = self.scratch / f"{bundle.name}.engines"
        if not copy.exists():
            shutil.copytree(bundle, copy)
        for backend in self.runnable:
            if (bundle.name, precisions, backend) in self._built:
                continue
            self._built.add((bundle.name, precisions, backend))
            with self.suite.stage(f"build {bundle.name} {', '.join(precisions)} with {backend.label}"):
                options = BuildOptions(backend=backend, profiles=profiles, precisions=precisions)
                self.suite.engines += [
                    {
                        "bundle": bundle.name,
                        "engine": engine.file.path,
                        "size_bytes": engine.file.size_bytes,
                        "build_ms": engine.metadata.build_ms,
                        "layers": engine.metadata.engine_layers,
                    }
                    for engine in build_engines(copy, options).engines
                ]
        return copy

    @property
    def _profiles(self) -> tuple[BatchProfile, ...]:
        most = self.batches[-1]
        single = BatchProfile(minimum=1, optimum=1, maximum=1)
        return (single, BatchProfile(minimum=2, optimum=most, maximum=most)) if most > 1 else (single,)

    def _candidates(self, variant: str, precision: Precision, baselines: Baselines) -> list[Entry]:
        """Artifacts of one precision in every form with their bundles, and the baselines, each once."""
        found: dict[CandidateConfig, Entry] = {}
        for form, what in FORMS.items():
            if precision not in what.precisions:
                continue
            path = self._bundle(bundle_name(variant, form))
            if path is None:
                continue
            opened = Bundle.open(self._engines(path, self._profiles, (precision,)))
            gpu = GpuOptions(baselines=baselines)
            others = select_candidates(opened, (Group.GPU,), gpu=gpu)
            selected = others + select_candidates(opened, (Group.ENGINE,), gpu=gpu)
            skipped = selected.skipped[0 if form == DEFAULT else len(others.skipped) :]
            self.suite.left_out += [f"{path.name}: {item.name}: {item.reason}" for item in skipped]
            for candidate in selected.candidates:
                config = candidate.config
                if config.runtime is RuntimeKind.PYTORCH:  # a baseline, which has no form
                    if belongs_beside(config.precision, precision):
                        found.setdefault(config, Entry(candidate=candidate, bundle=None))
                elif config.precision is precision:
                    told = dataclasses.replace(config, label=f"{config.name}, form {form}")
                    candidate_of_form = dataclasses.replace(candidate, config=told)
                    found[told] = Entry(candidate=candidate_of_form, bundle=path.name)
        return list(found.values())

    def latency(
        self, variant: str, precision: Precision, batch: int, baselines: Baselines = Baselines.QUICK
    ) -> None:
        """One precision of one variant in every form, against the baselines, at one batch size."""
        name = f"latency of {variant} {precision}, batch {batch}"
        name += "" if baselines is Baselines.QUICK else f", {baselines} baselines"
        if not self.suite.fits(name, 40 if baselines is Baselines.QUICK else 150):
            return
        with self.suite.stage(name):
            entries = self._candidates(variant, precision, baselines)
            self._time(name, variant, precision, entries, batch)

    def _time(
        self,
        what: str,
        variant: str,
        precision: Precision,
        entries: list[Entry],
        batch: int,
    ) -> None:
        size = self._default(variant).manifest.model.preprocessing.crop_px
        result = measure_latency(
            [entry.candidate for entry in entries],
            synthetic_images(batch, size, seed=0),
            InputImages(description="synthetic", image_size_px=size, batches=(batch,), seed=0),
            self._bench_options(batch),
        )
        facts = tuple(CandidateFacts(config=e.candidate.config, bundle=e.bundle) for e in entries)
        self.suite.latency.append(
            Timed(what=what, variant=variant, precision=precision, candidates=facts, result=result)
        )
        self.suite.left_out += [f"{what}: {item.name}: {item.reason}" for item in result.skipped]

    def _default(self, variant: str) -> Bundle:
        return Bundle.open(self.folder / bundle_name(variant, DEFAULT))

    def _bench_options(self, batch: int) -> BenchOptions:
        if self.suite.dry:
            return BenchOptions(batches=(batch,), rounds=5, repeats=1, warmup=1)
        rounds, repeats = (10, 5) if batch < 64 else (5, 3)  # large batches vary little, and take long
        return BenchOptions(batches=(batch,), rounds=rounds, repeats=repeats, warmup=5)

    def ablation(self) -> None:
        """Fusing and folding taken away again, in PyTorch and in engines of the plain export."""
        variant, batch = self.variants[0], self.batches[-1]
        path = self._bundle(bundle_name(variant, DEFAULT))
        if path is None:
            return
        bundle = Bundle.open(path)
        for compiled in (False, True) if torch.cuda.is_available() else ():
            what = f"ablation, PyTorch {'compiled' if compiled else 'eager'}, batch {batch}"
            if self.suite.fits(what, 60 if compiled else 15):
                with self.suite.stage(what):
                    forms = baselines_of(_ablation.modules(bundle, compiled=compiled))
                    self._time(what, variant, Precision.FP16, forms, batch)
        for backend in self.runnable:
            what = f"ablation, {backend.label}, plain exports, batch {batch}"
            if self.suite.fits(what, 40):
                with self.suite.stage(what):
                    forms = baselines_of(_ablation.engines(bundle, self.scratch, backend, batch))
                    self._time(what, variant, Precision.FP32, forms, batch)

    def roofline(self) -> None:
        """Every series of kernels beside its floor."""
        with self.suite.stage("roofline"):
            if self.ceiling is None:
                self.ceiling, missing = measure_ceiling("cpu" if self.suite.dry else "cuda")
                self.suite.left_out += missing
            rows = [
                row
                for timed in self.suite.latency
                for row in floor_rows(timed, self._default(timed.variant).manifest.model, self.ceiling)
            ]
            self.suite.roofline = {"ceiling": to_jsonable(self.ceiling), "rows": rows}
