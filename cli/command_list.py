"""Every command: where its function is, and what the help says of it before that is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CommandEntry:
    """A command that is imported when it is asked for.

    Attributes:
        module: In :mod:`riformer_deploy_cli.commands`.
        function: In the module; its docstring is the command's help.
        summary: The first paragraph of that docstring, in one line.
        example: A command line that works.
    """

    module: str
    function: str
    summary: str
    example: str


COMMANDS = {
    "run": CommandEntry(
        module="run",
        function="run",
        summary=(
            "Take a checkpoint to the decision what to ship: export, build, verify, measure, report, answer."
        ),
        example="riformer-deploy run ckpt.pth --calibration photos --data imagenet --max-drop 0.5",
    ),
    "export": CommandEntry(
        module="export",
        function="export",
        summary=(
            "Turn a checkpoint into a bundle: fused weights, ONNX, and the parity report that they agree."
        ),
        example="riformer-deploy export ckpt.pth -o bundle --image-size 224",
    ),
    "fuse": CommandEntry(
        module="fuse",
        function="fuse",
        summary=(
            "Fold the affine branch into its norm: mmpretrain's reparameterize tool, without mmpretrain."
        ),
        example="riformer-deploy fuse ckpt.pth -o deploy.pth",
    ),
    "reparameterize": CommandEntry(
        module="reparameterize",
        function="reparameterize",
        summary="The same as fuse, with the arguments of mmpretrain's tool.",
        example="riformer-deploy reparameterize riformer-s12_8xb128_in1k.py ckpt.pth deploy.pth",
    ),
    "test": CommandEntry(
        module="test",
        function="evaluate",
        summary="Measure a checkpoint's top-1 and top-5: mmpretrain's test tool, without mmpretrain.",
        example="riformer-deploy test config.py ckpt.pth --data data/imagenet",
    ),
    "bench": CommandEntry(
        module="bench",
        function="bench",
        summary="Time a bundle's models side by side, and say which is the fastest, by how much.",
        example="riformer-deploy bench bundle --onnx --batch 1 --batch 8",
    ),
    "build": CommandEntry(
        module="build",
        function="build",
        summary="Build TensorRT engines of a bundle's models; TensorRT-RTX needs no GPU for it.",
        example="riformer-deploy build bundle --precision fp16 --profile 1:8:32",
    ),
    "report": CommandEntry(
        module="report",
        function="report",
        summary="Write what was measured of a bundle as one self-contained HTML file, and its model card.",
        example="riformer-deploy report bundle -o report.html",
    ),
    "compare": CommandEntry(
        module="compare",
        function="compare",
        summary=(
            "Say what changed from A to B: files, parity, accuracy, latency; exit 1 where a "
            "gate does not hold."
        ),
        example="riformer-deploy compare old-bundle bundle --max-slowdown 5% --max-drop 0.1",
    ),
    "predict": CommandEntry(
        module="predict",
        function="predict",
        summary=(
            "Say what pictures show: files, folders or quoted patterns; the last argument may be a bundle."
        ),
        example="riformer-deploy predict photos/ 'more/*.jpg' bundle --top 3",
    ),
    "features": CommandEntry(
        module="features",
        function="features",
        summary=(
            "Write features of pictures: files, folders or quoted patterns; the last "
            "argument may be a bundle."
        ),
        example="riformer-deploy features photos/ bundle -o features.npz",
    ),
    "score": CommandEntry(
        module="score",
        function="score",
        summary=(
            "Score any number of pictures with Ray, here or on a cluster; an interrupted pass is "
            "taken up again."
        ),
        example="riformer-deploy score photos/ bundle -o scores.parquet --cluster auto",
    ),
    "download": CommandEntry(
        module="download",
        function="download",
        summary="Fetch a published checkpoint by name and check it against the hash in its file name.",
        example="riformer-deploy download riformer-s12_in1k -o checkpoints",
    ),
    "reproduce": CommandEntry(
        module="reproduce",
        function="reproduce",
        summary=(
            "Measure the published results table: parameters, FLOPs, top-1 and top-5, unfused and fused."
        ),
        example="riformer-deploy reproduce riformer-s12_in1k --data imagenet",
    ),
    "sensitivity": CommandEntry(
        module="sensitivity",
        function="sensitivity",
        summary="Rank the layers by what quantising each one alone costs.",
        example="riformer-deploy sensitivity bundle --calibration images.npz",
    ),
    "tune": CommandEntry(
        module="tune",
        function="tune",
        summary="Find the fastest model on this machine that holds a gate, and put it into the bundle.",
        example="riformer-deploy tune bundle --calibration photos --with openvino",
    ),
    "inspect": CommandEntry(
        module="inspect",
        function="inspect",
        summary="Say what a file is: variant, form, size, cost, inputs and outputs, precision, provenance.",
        example="riformer-deploy inspect ckpt.pth",
    ),
    "models": CommandEntry(
        module="models",
        function="models",
        summary=(
            "List the ten published models; parameters (deploy form) and multiply-adds are computed here."
        ),
        example="riformer-deploy models --json",
    ),
    "doctor": CommandEntry(
        module="doctor",
        function="doctor",
        summary="Say what this machine can do, and the command that installs what is missing.",
        example="riformer-deploy doctor",
    ),
}
"""By name; those of the groups are below."""

VERIFY = {
    "parity": CommandEntry(
        module="parity",
        function="parity",
        summary=(
            "Compare every artifact of a bundle with the training form in float64; exit 1 where any failed."
        ),
        example="riformer-deploy verify parity bundle --json",
    ),
    "accuracy": CommandEntry(
        module="accuracy",
        function="accuracy",
        summary="Measure top-1 and top-5 of artifacts in one pass over labelled pictures.",
        example="riformer-deploy verify accuracy bundle --data imagenet --max-drop 0.1",
    ),
}

SERVE = {
    "triton": CommandEntry(
        module="serve",
        function="triton",
        summary="Write a Triton model repository: the model, its preprocessing, and the ensemble of both.",
        example="riformer-deploy serve triton bundle -o models --precision fp16",
    ),
    "check": CommandEntry(
        module="serve",
        function="check",
        summary="Compare what a Triton server gives with what a bundle keeps; exit 1 where it differs.",
        example="riformer-deploy serve check http://localhost:8000 bundle --json",
    ),
}
