"""Checkpoints, configs, pictures, arrays and graphs that were damaged, or made to harm.

Whatever a file holds, reading it gives that or the error of the file, within seconds and bounded memory.
"""

from __future__ import annotations

import faulthandler
import io
import os
import pickle
import random
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

from riformer_deploy.api.inspect_onnx import inspect_onnx
from riformer_deploy.checkpoints.config_files import read_config
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.mmengine_config import refused_settings
from riformer_deploy.checkpoints.stored_pipeline import read_pipeline
from riformer_deploy.common.errors import CheckpointError, OptionError, RIFormerDeployError
from riformer_deploy.common.serialization import RecordError, parse_json
from riformer_deploy.data.calibration_files import npz_set
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.class_names import read_class_names
from riformer_deploy.data.datasets import open_dataset
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.preprocessing import Preprocessing
from tests.battery import cases
from tests.jpegs import with_scans

SECONDS = 20
"""Of the processor's time, since other processes may wait for it; what waits itself ends the run later."""
MORE_BYTES = 3 << 30
"""What a case may add to the address space; the largest legitimate file here has some kilobytes."""
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
IMAGES = Preprocessing(resize_short_edge_px=None, crop_px=(8, 8))
TWO_CLASSES = ClassList(count=2, names=None)


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """No case hangs, and none takes much memory."""
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, before[1]))
    faulthandler.dump_traceback_later(60 * SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, before)


def _config(path: Path) -> None:
    try:
        read_config(path)
    finally:
        if os.path.isfile(path) and path.stat().st_size < 2_000_000:  # noqa: PTH113  # never raises
            text = path.read_bytes().decode("utf-8", "replace")  # as a checkpoint stores it
            refused_settings(text)
            read_pipeline(text)


def _json(path: Path) -> None:
    try:
        parse_json(path.read_bytes().decode("utf-8", "surrogateescape"))
    except RecordError as err:
        raise OptionError(str(err)) from err


def _calibration(path: Path) -> None:
    list(npz_set(path, IMAGES).batches())


READERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys(("zip.pth", "legacy.pth", "x.safetensors", "state.npz"), load_checkpoint),
    **dict.fromkeys(("a.png", "a.jpg", "b.jpg", "a.gif", "a.webp", "a.tif", "a.bmp", "a.ppm"), decode_image),
    "images.npz": _calibration,
    "labelled.npz": lambda path: open_dataset(path, TWO_CLASSES),
    "names.txt": lambda path: read_class_names(path, 3),
    "config.py": _config,
    "index.json": _json,
    "graph.onnx": inspect_onnx,
}


def _graph() -> onnx.ModelProto:
    make = onnx.helper
    value = make.make_tensor_value_info("x", 1, ["n", 3, 8, 8])
    result = make.make_tensor_value_info("y", 1, ["n", 4, 8, 8])
    weight = make.make_tensor("w", 1, [4, 3, 1, 1], np.ones(12, np.float32).tobytes(), raw=True)
    node = make.make_node("Conv", ["x", "w"], ["y"])
    return make.make_model(make.make_graph([node], "g", [value], [result], [weight]))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> dict[str, bytes]:
    """A good file for each reader, some of them small."""
    folder = tmp_path_factory.mktemp("originals")
    content = torch.load(tiny_checkpoint, weights_only=True)
    state: dict[str, Tensor] = content["state_dict"]
    torch.save(content, folder / "zip.pth")
    torch.save(content, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {key: value.numpy() for key, value in state.items()}
    np.savez_compressed(folder / "state.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub
    (folder / "x.safetensors").write_bytes(_safetensors(state))
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "b.jpg", progressive=True)
    for name in READERS:
        if name.startswith("a."):
            Image.fromarray(pixels).save(folder / name)
    images = pixels[:16, :16].reshape(-1, 8, 8, 3)
    np.savez(folder / "images.npz", images=images)
    np.savez_compressed(folder / "labelled.npz", images=images, labels=np.zeros(len(images), np.int64))
    (folder / "names.txt").write_text("one\ntwo\nthree\n")
    (folder / "config.py").write_text(
        "_base_ = []\nsize = 64\na = dict(x=[1, 2.5, 'three'], y=dict(z=size * 2))\na.update(w=a.x)\n"
        "test_pipeline = [dict(type='ResizeEdge', scale=size), dict(type='CenterCrop', crop_size=8)]\n"
        "model = dict(type='ImageClassifier', backbone=dict(type='RIFormer', arch='s12', **a.y))\n"
    )
    (folder / "index.json").write_text('{"weight_map": {"a": "b", "c": [1, -2.5e3, "\\u00e9", null, true]}}')
    (folder / "graph.onnx").write_bytes(_graph().SerializeToString())
    return {name: (folder / name).read_bytes() for name in READERS}


def _safetensors(state: dict[str, Tensor]) -> bytes:
    entries, end = [], 0
    for name, value in state.items():
        size = value.numel() * 4
        shape = list(value.shape)
        entries.append(
            f'"{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{end}, {end + size}]}}'
        )
        end += size
    text = ("{" + ", ".join(entries) + "}").encode()
    body = b"".join(value.numpy().tobytes() for value in state.values())
    return len(text).to_bytes(8, "little") + text + body


def _altered(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to four places flipped, set, cut out, doubled, moved or filled with what is odd."""
    changed = bytearray(data)
    # damage to what describes the content is more telling than damage to the content
    front = rng.random() < 0.7
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        at = rng.randrange(min(len(changed), 400) if front else len(changed))
        size = min(rng.choice((1, 2, 4, 8, 64)), len(changed) - at)
        match rng.randrange(7):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + size] = rng.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size] * rng.choice((1, 3, 1000))
            case 4:
                changed[at : at + size] = rng.choice((b"\xff", b"\x00", b"\x7f", b"9", b"(", b"[")) * size
            case 5:
                number = rng.choice((0, -1, 2**31 - 1, 2**31, 2**62, 10**9))
                changed[at : at + 8] = struct.pack("<q", number)
            case _:
                del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def _repacked(rng: random.Random, data: bytes) -> bytes:
    """A zip archive with a member altered and every checksum right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {item.filename: (archive.read(item), item.compress_type) for item in archive.infolist()}
    pickles = [name for name in members if name.endswith(("data.pkl", ".npy"))]
    chosen = rng.choice(pickles)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, (content, method) in members.items():
            archive.writestr(name, _altered(rng, content) if name == chosen else content, method)
    return packed.getvalue()


def _read(reader: Callable[[Path], object], path: Path, what: str) -> bool:
    """Whether a file is accepted; any error that is not of the toolkit escapes, as does a slow one."""
    start = time.process_time()
    try:
        reader(path)
    except RIFormerDeployError:
        return False
    finally:
        assert time.process_time() - start < SECONDS, what
    return True


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, originals: dict[str, bytes], name: str) -> None:
    path, original = tmp_path / name, originals[name]
    path.write_bytes(original)
    assert _read(READERS[name], path, "the original")
    refused = 0
    for number, rng in enumerate(cases(sample=12, everything=1000)):
        repack = zipfile.is_zipfile(path) and rng.random() < 0.5
        path.write_bytes(_repacked(rng, original) if repack else _altered(rng, original))
        refused += not _read(READERS[name], path, f"case {number} of {name}")
        path.write_bytes(original)
    assert refused


def _zipped(body: bytes, **members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return packed.getvalue()


def _legacy(body: bytes, keys: list[str] = [], rest: bytes = b"") -> bytes:  # noqa: B006  # it is only read
    head = [pickle.dumps(part, 2) for part in (_MAGIC, _PROTOCOL, _SYSTEM)]
    return b"".join((*head, body, pickle.dumps(keys, 2), rest))


def test_random_opcodes_are_refused_or_give_plain_data(tmp_path: Path) -> None:
    pieces = [
        b"(", b")", b"}", b"]", b"N", b"\x88", b"K\x05", b"J\xff\xff\xff\x7f", b"h\x00",
        b"X\x01\x00\x00\x00a",
        b"q\x00", b"q\x01", b"h\x01", b"t", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"b", b"a", b"e", b"s",
        b"u", b"Q", b"U\x01b", b"\x8a\x09" + b"\x7f" * 9,
        b"X\x07\x00\x00\x00storage",
        b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch\nFloatTensor\n", b"cbuiltins\nset\n", b"ctorch\nSize\n", b"c_codecs\nencode\n",
        b"ctorch._tensor\n_rebuild_from_type_v2\n",
    ]  # fmt: skip
    path = tmp_path / "random.pth"
    for number, rng in enumerate(cases(sample=100, everything=20_000)):
        body = b"\x80\x02" + b"".join(rng.choices(pieces, k=rng.randint(1, 60))) + b"."
        path.write_bytes(_zipped(body, **{"data/a": b"\x00" * 16}) if number % 2 else _legacy(body))
        _read(load_checkpoint, path, f"case {number}")


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ%btQ"


def _tensor(*, stored: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A state dict of one block's norm, described in this way."""
    key = b"backbone.network.0.0.norm2.weight"
    numbers = [pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride)]
    # memo numbers of the parts do not matter: nothing refers to them
    body = b"\x80\x02}X" + len(key).to_bytes(4, "little") + key + b"ctorch._utils\n_rebuild_tensor_v2\n("
    storage = STORAGE.replace(b"%b", stored.to_bytes(4, "little"))
    return body + storage + b"".join(numbers) + b"\x89}tRs."


def _nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return b"\x80\x02" + opening * depth + b"N" + closing * depth + b"."


def _doubled_meta() -> bytes:
    """A checkpoint whose meta is 2**60 values in a kilobyte."""
    body = b"\x80\x02}X\x04\x00\x00\x00meta}X\x01\x00\x00\x00a]q\x01"
    body += b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(1, 60))
    return body + b"ss."


def _deep_key() -> bytes:
    """A dictionary whose key is a tuple in a tuple, 200,000 deep: hashing it ends the interpreter."""
    return b"\x80\x02}N" + b"\x85" * 200_000 + b"Ns."


def _equal_hashes() -> bytes:
    """A dictionary of 100,000 keys whose hashes are all 0."""
    keys = (pickle.dumps(n * (2**61 - 1), 2)[2:-1] + b"N" for n in range(1, 100_000))
    return b"\x80\x02}(" + b"".join(keys) + b"u."


def _many_prefixes() -> bytes:
    keys = {f"{n}.backbone.network.0.0.norm_reparam.weight": 0 for n in range(50_000)}
    return pickle.dumps(keys, 2)


ATTACKS: dict[str, Callable[[], bytes]] = {
    "memory that nobody wrote": lambda: _zipped(
        b"\x80\x02}X\x15\x00\x00\x00backbone.norm6.weightctorch\nFloatTensor\nK\x08K\x04\x86Rs."
    ),
    "a tensor beyond its storage": lambda: _zipped(
        _tensor(stored=4, size=(8,), stride=(1,)), **{"data/0": bytes(16)}
    ),
    "a stride of zero": lambda: _zipped(
        _tensor(stored=4, size=(2**30, 4), stride=(0, 1)), **{"data/0": bytes(16)}
    ),
    "rows over each other": lambda: _zipped(
        _tensor(stored=4, size=(3, 2), stride=(1, 1)), **{"data/0": bytes(16)}
    ),
    "an offset before the storage": lambda: _zipped(
        _tensor(stored=4, size=(2,), stride=(1,), offset=-1), **{"data/0": bytes(16)}
    ),
    "a storage that is not there": lambda: _zipped(_tensor(stored=4, size=(4,), stride=(1,))),
    "a storage of another size": lambda: _zipped(
        _tensor(stored=2**30, size=(4,), stride=(1,)), **{"data/0": bytes(16)}
    ),
    "2**60 values": lambda: _zipped(_doubled_meta()),
    "a list in itself": lambda: _zipped(b"\x80\x02}X\x04\x00\x00\x00meta}X\x01\x00\x00\x00a]q\x01h\x01ass."),
    "lists 100,000 deep": lambda: _zipped(_nested(b"]", b"a", 100_000)),
    "tuples 100,000 deep": lambda: _zipped(_nested(b"", b"\x85", 100_000)),
    "a key 200,000 deep": lambda: _zipped(_deep_key()),
    "four million opcodes": lambda: _zipped(b"\x80\x02(" + b"N" * 4_000_000 + b"t."),
    "50,000 RIFormers": lambda: _zipped(_many_prefixes()),
    "a prefix 200,000 times": lambda: _zipped(
        pickle.dumps({"module." * 200_000 + "backbone.network.0.0.norm_reparam.weight": 0}, 2)
    ),
    "keys of equal hashes": lambda: _zipped(_equal_hashes()),
    "a legacy storage of 2**40": lambda: _legacy(b"\x80\x02}.", ["0"], (2**40).to_bytes(8, "little")),
    "a header of 100 MB": lambda: (99_999_999).to_bytes(8, "little") + b"{" + b"[" * 1000,
    "nested JSON": lambda: (100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995,
    "a key 50,000 times": lambda: _header("{" + ",".join(['"a":1'] * 50_000) + "}"),
    "negative sizes": lambda: _header(
        '{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}', bytes(4)
    ),
    "sizes of many digits": lambda: _header(
        '{"a": {"dtype": "F32", "shape": [' + "9" * 5000 + '], "data_offsets": [0, 4]}}', bytes(4)
    ),
}


def _header(text: str, body: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + body


SLOW = ("four million opcodes", "keys of equal hashes", "a key 200,000 deep", "50,000 RIFormers")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ATTACKS]
)
@pytest.mark.untraced
def test_a_checkpoint_that_was_made_to_harm_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(ATTACKS[name]())
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        load_checkpoint(path)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member_is_refused_before_it_is_unpacked(tmp_path: Path, method: int) -> None:
    for name, member in (("bad.pth", "archive/data.pkl"), ("bad.npz", "a.npy")):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            with archive.open(member, "w", force_zip64=True) as file:
                file.write(bytes(4 << 20))
            archive.writestr("archive/version", b"3")
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path, originals: dict[str, bytes]) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(originals["zip.pth"])
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if "/data/" in name)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b"\x00" * 64)
    with pytest.raises(CheckpointError, match="twice"):
        load_checkpoint(path)


@pytest.mark.parametrize("kind", ["pipe", "zero", "sparse", "folder", "link to itself", "long name", "null"])
@pytest.mark.parametrize(
    "name",
    [
        "zip.pth",
        "a.jpg",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("images.npz", "labelled.npz", "names.txt")),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("config.py", "graph.onnx")),
    ],
)
def test_what_is_no_plain_file_is_refused_without_waiting(
    tmp_path: Path, originals: dict[str, bytes], kind: str, name: str
) -> None:
    path = tmp_path / name
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "zero":
            path.symlink_to("/dev/zero")
        case "sparse":
            path.write_bytes(originals[name][:4])
            os.truncate(path, 1 << 40)
        case "folder":
            path.mkdir()
        case "link to itself":
            path.symlink_to(path)
        case "long name":
            path = tmp_path / ("a" * 5000 + name)
        case _:
            path = tmp_path / f"a\0{name}"
    assert not _read(READERS[name], path, kind)


def test_a_picture_of_2000_scans_is_refused(tmp_path: Path, originals: dict[str, bytes]) -> None:
    path = tmp_path / "scans.jpg"
    path.write_bytes(with_scans(originals["b.jpg"], 2000))
    with pytest.raises(RIFormerDeployError, match="more than 100 scans"):
        decode_image(path)


def _functions() -> onnx.ModelProto:
    """Functions that call each other twice: 2**30 nodes."""
    make, model = onnx.helper, _graph()
    opsets = [make.make_opsetid("", 18), make.make_opsetid("own", 1)]
    for n in range(15):
        called = f"f{n + 1}" if n < 14 else "Relu"
        domain = "own" if n < 14 else ""
        nodes = [make.make_node(called, ["a"], [f"b{m}"], domain=domain) for m in range(4)]
        nodes.append(make.make_node("Identity", ["b0"], ["c"]))
        model.functions.append(make.make_function("own", f"f{n}", ["a"], ["c"], nodes, opsets))
    return model


def _endless() -> onnx.ModelProto:
    make, model = onnx.helper, _graph()
    node = make.make_node("f", ["a"], ["c"], domain="own")
    model.functions.append(
        make.make_function("own", "f", ["a"], ["c"], [node], [make.make_opsetid("own", 1)])
    )
    model.graph.node.append(make.make_node("f", ["x"], ["z"], domain="own"))
    return model


def _many_nodes() -> onnx.ModelProto:
    model = _graph()
    model.graph.node.extend(onnx.helper.make_node("Relu", ["x"], [f"r{n}"]) for n in range(60_000))
    return model


def _outside() -> onnx.ModelProto:
    model = _graph()
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "/dev/zero")
    return model


def _odd_type() -> onnx.ModelProto:
    model = _graph()
    model.graph.input[0].type.tensor_type.elem_type = 9999
    return model


def _huge() -> onnx.ModelProto:
    model = _graph()
    model.graph.initializer[0].dims[:] = [2**62, 2**62]
    return model


@pytest.mark.parametrize(
    "make",
    [_functions, _endless, pytest.param(_many_nodes, marks=pytest.mark.slow), _outside, _odd_type, _huge],
)
def test_a_graph_that_was_made_to_harm_is_refused(tmp_path: Path, make: Callable[[], Any]) -> None:
    path = tmp_path / "bad.onnx"
    model = make()
    if make is _functions:
        model.graph.node.append(onnx.helper.make_node("f0", ["x"], ["z"], domain="own"))
    path.write_bytes(model.SerializeToString())
    accepted = _read(inspect_onnx, path, make.__name__)
    assert not accepted or make is _odd_type  # which is told as unknown


def test_eight_threads_load_at_once(tmp_path: Path, originals: dict[str, bytes]) -> None:
    path = tmp_path / "zip.pth"
    path.write_bytes(originals["zip.pth"])
    expected = load_checkpoint(path).weights_sha256
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_checkpoint(path).weights_sha256, range(16)))
    assert set(found) == {expected}
