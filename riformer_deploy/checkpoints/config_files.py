"""mmengine config files with everything that they build on, parsed and never executed.

Both styles are read: ``_base_ = [...]`` with ``{{_base_.name}}`` and ``_base_.name``, and mmengine's new one,
``with read_base(): from .file import *``.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riformer_deploy.checkpoints.allowlists import SCOPES
from riformer_deploy.checkpoints.config_spelling import Speller
from riformer_deploy.checkpoints.config_syntax import Namespace
from riformer_deploy.checkpoints.config_values import UNREAD, Budget, merged
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.files import FileTooLargeError, read_regular
from riformer_deploy.common.foreign_data import foreign_data, reason_of
from riformer_deploy.model.variants import ARCHITECTURES, VARIANTS

_MOST_BYTES = 1_000_000
_MOST_FILES = 64


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """What a config file says.

    Attributes:
        path: The file.
        names: Every top-level name with its value: literals, lists and dictionaries, or
            :data:`~riformer_deploy.checkpoints.config_values.UNREAD`.
        text: The same as one flat Python text, as mmengine stores it in ``meta['cfg']``.
    """

    path: Path
    names: Mapping[str, Any]
    text: str

    def get(self, *keys: str) -> Any:
        """The value under a chain of keys; None where there is none."""
        value: Any = self.names
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def deploy(self) -> bool:
        """Whether the backbone is in deploy form."""
        return self.get("model", "backbone", "deploy") is True

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Those of the test set, else the training set, else the top level; None where there are none."""
        for place in (("test_dataloader", "dataset"), ("train_dataloader", "dataset"), ()):
            for keys in (("metainfo", "classes"), ("classes",)):
                found = self.get(*place, *keys)
                if isinstance(found, list) and found and all(isinstance(item, str) for item in found):
                    return tuple(found)
        return None


def read_config(path: Path | str) -> ConfigFile:
    """Read a config file and all that it builds on.

    Read are at most 64 files of 1 MB each, which make 100,000 values and a text of 10 MB.

    Args:
        path: A ``.py`` file; or, where there is no such file, one that is named like a published config
            of RIFormer, such as ``configs/riformer/riformer-s12_8xb128_in1k.py``, which is known here.

    Raises:
        OptionError: A file cannot be read, is not Python, builds on itself, or on one that is not there, or
            they are together more than is read.
    """
    path = Path(path)
    with foreign_data(path, OptionError, kind="a config", remedy="Give it as Config.dump writes it."):
        names = _Reader().read(path, ())
        _bare_steps(names)
        speller = Speller()
        lines = [f"{name} = {speller.spelled(value)}" for name, value in names.items()]
    return ConfigFile(path=path, names=names, text="\n".join(lines) + "\n")


def published_config(stem: str) -> dict[str, Any] | None:
    """The names of mmpretrain's own config of that name that matter here; None for any other name.

    Args:
        stem: The file's name without ``.py``, such as ``riformer-s12-deploy_8xb128_in1k``.
    """
    plain = stem.replace("-deploy", "", 1)
    for variant in VARIANTS.values():
        if variant.config == plain:
            (arch,) = (name for name, shape in ARCHITECTURES.items() if shape == variant.architecture)
            found = variant.preprocessing
            pipeline = [
                {"type": "LoadImageFromFile"},
                {
                    "type": "ResizeEdge",
                    "scale": found.resize_short_edge_px,
                    "edge": "short",
                    "backend": "pillow",
                    "interpolation": found.interpolation,
                },
                {"type": "CenterCrop", "crop_size": found.crop_px[0]},
                {"type": "PackInputs"},
            ]
            return {
                "default_scope": "mmpretrain",
                "data_preprocessor": {
                    "num_classes": 1000, "mean": list(found.mean), "std": list(found.std), "to_rgb": True,
                },
                "test_pipeline": pipeline,
                "test_dataloader": {"dataset": {"type": "ImageNet", "pipeline": pipeline}},
                "model": {
                    "type": "ImageClassifier",
                    "backbone": {"type": "RIFormer", "arch": arch, "deploy": plain != stem},
                    "neck": {"type": "GlobalAveragePooling"},
                    "head": {
                        "type": "LinearClsHead",
                        "num_classes": 1000,
                        "in_channels": variant.architecture.embed_dims[-1],
                    },
                },
            }  # fmt: skip
    return None


class _Reader:
    """Reads one chain of files; how many is bounded."""

    def __init__(self) -> None:
        self._count = 0
        self._budget = Budget()

    def read(self, path: Path, readers: tuple[Path, ...]) -> dict[str, Any]:
        """The names of a file, with those of what it builds on.

        Args:
            path: The file.
            readers: The files that build on it, the first one first.
        """
        if not path.exists() and (known := published_config(path.stem)) is not None:
            return known
        whole = path.resolve()
        if whole in readers:
            raise OptionError(f"The config {path} builds on itself.")
        self._count += 1
        if self._count > _MOST_FILES:
            raise OptionError(f"The config {readers[0]} builds on more than {_MOST_FILES} files.")
        tree = _parsed(path, readers)
        try:
            return self._followed(tree, Namespace(budget=self._budget), path, (*readers, whole))
        except RecursionError as err:
            raise OptionError(f"The config {path} is nested too deeply to be read.") from err

    def _followed(
        self, tree: ast.Module, namespace: Namespace, path: Path, readers: tuple[Path, ...]
    ) -> dict[str, Any]:
        bases: dict[str, Any] = {}
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and _is_base(statement.targets[0]):
                named = namespace.value(statement.value)
                for item in named if isinstance(named, list) else [named]:
                    bases |= self._base(item, path, readers)
        namespace.base = bases
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and _is_base(statement.targets[0]):
                continue
            if isinstance(statement, ast.With) and _reads_base(statement):
                self._import_bases(statement, namespace, path, readers)
            else:
                namespace.run(statement)
        own = {name: value for name, value in namespace.names.items() if not name.startswith("__")}
        # Each name is copied by itself: what two names share within a file they do not share beyond it.
        return {name: self._budget.copied(value) for name, value in merged(own, bases, self._budget).items()}

    def _base(self, named: Any, path: Path, readers: tuple[Path, ...]) -> dict[str, Any]:
        if not isinstance(named, str):
            raise OptionError(f"The config {path} builds on {named!r}; the path of a file was expected.")
        scope, _, rest = named.rpartition("::")
        found = path.parent / rest if not scope else _installed(scope, Path(rest))
        if found.suffix != ".py":
            raise OptionError(f"The config {path} builds on {named}; only .py files are read.")
        names = self.read(found, readers)
        for value in names.values() if scope else ():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    item.setdefault("_scope_", scope)
        return names

    def _import_bases(
        self, statement: ast.With, namespace: Namespace, path: Path, readers: tuple[Path, ...]
    ) -> None:
        for item in statement.body:
            match item:
                case ast.ImportFrom(module=str() as module, names=wanted, level=level):
                    parts = Path(*module.split(".")).with_suffix(".py")
                    folders = path.absolute().parents
                    base = folders[min(level, len(folders)) - 1] / parts if level else _imported(parts)
                    names = self.read(base, readers)
                    for alias in wanted:
                        if alias.name == "*":
                            namespace.names |= names
                        else:
                            namespace.names[alias.asname or alias.name] = names.get(alias.name, UNREAD)
                case ast.Pass():
                    pass
                case _:
                    raise OptionError(
                        f"The config {path} has another statement than `from ... import ...` in read_base."
                    )


def _is_base(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "_base_"


def _reads_base(statement: ast.With) -> bool:
    call = statement.items[0].context_expr
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "read_base"


def _installed(package: str, rest: Path) -> Path:
    """A config that an installed package ships; its place is looked up, the package is not imported."""
    for folder in _folders_of(package):
        found = Path(folder) / ".mim" / "configs" / rest
        if found.exists():
            return found
    return rest


def _folders_of(package: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except ValueError:  # of __main__ and other modules that came from no file
        return []
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _imported(parts: Path) -> Path:
    package, *rest = parts.parts
    for folder in _folders_of(package):
        if (found := Path(folder, *rest)).exists():
            return found
    return parts


def _parsed(path: Path, readers: tuple[Path, ...]) -> ast.Module:
    beneath = f", which {readers[-1]} builds on," if readers else ""
    try:
        return ast.parse(read_regular(path, _MOST_BYTES).decode("utf-8"))
    except FileTooLargeError as err:
        raise OptionError(f"The config {path}{beneath} has more than {_MOST_BYTES:,} bytes.") from err
    except (OSError, UnicodeDecodeError) as err:
        reason = "there is no such file" if isinstance(err, FileNotFoundError) else str(err)
        raise OptionError(
            f"The config {path}{beneath} cannot be read: {reason}.",
            remedy="Give it where its bases are, or as mmengine's Config.dump writes it: as one file.",
        ) from err
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise OptionError(f"The config {path}{beneath} is not Python: {reason_of(err)}.") from err


def _bare_steps(names: Mapping[str, Any]) -> None:
    """Write the test pipeline's steps that were imported, or have a scope, by their registered names."""
    loader = names.get("test_dataloader")
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    used = dataset.get("pipeline") if isinstance(dataset, dict) else None
    for pipeline in (names.get("test_pipeline"), used):
        for step in pipeline if isinstance(pipeline, list) else ():
            if isinstance(step, dict) and isinstance(kind := step.get("type"), str):
                root, _, rest = kind.partition(".")
                if root in {*SCOPES, "mmcv", "mmengine"} and rest:
                    step["type"] = rest.rpartition(".")[2]
