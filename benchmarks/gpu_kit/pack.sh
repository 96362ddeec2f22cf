#!/usr/bin/env bash
# Packs what a GPU machine without network lacks (Python 3.12, x86-64) into folders that can be carried there one
# after the other:  pack.sh [OUT]   (default .gpu-kit in the current folder)
#   WHEELS="name==version ..."  what to pack instead of onnxsim, TensorRT-RTX and ONNX Runtime with CUDA
#   PIECE_MIB=40                the most that a folder holds
#   ARCHITECTURE=90             leave out machine code of other GPUs (90: Hopper), half of ONNX Runtime
# there.sh, which lies in each folder, installs them. Files that are put into a folder later travel with it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-.gpu-kit}; piece_mib=${PIECE_MIB:-40}
rtx=1.7.1.116
wheels=${WHEELS:-onnxsim==0.8.1 onnxruntime-gpu==1.31.1 tensorrt-rtx==$rtx tensorrt-rtx-cu13==$rtx
  tensorrt-rtx-cu13-bindings==$rtx tensorrt-rtx-cu13-libs==$rtx}
rm -rf "$out"; mkdir -p "$out/wheels"
platforms=(--platform manylinux2014_x86_64)
for n in 1 5 12 17 24 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${n}_x86_64"); done
for wheel in $wheels; do
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --abi cp312 --abi abi3 --abi none "${platforms[@]}" -d "$out/wheels" "$wheel" 2>/dev/null \
    || python3 -m pip wheel -q --no-deps -w "$out/wheels" "$wheel" 2>/dev/null \
    || { echo "cannot fetch $wheel" >&2; exit 1; }
done
if [ -n "${ARCHITECTURE:-}" ]; then
  for wheel in "$out"/wheels/*.whl; do python3 "$here/prune_architectures.py" "$wheel" "$ARCHITECTURE"; done
fi
# One archive, cut into pieces: what is in which wheel no longer matters.
tar -C "$out/wheels" -cf - . | split -b "${piece_mib}M" -d -a 2 - "$out/piece."
rm -r "$out/wheels"
pieces=("$out"/piece.*)
for index in "${!pieces[@]}"; do
  folder="$out/$((index + 1))"; mkdir "$folder"
  mv "${pieces[$index]}" "$folder/"; echo "${#pieces[@]}" >"$folder/pieces"; cp "$here/there.sh" "$folder/"
done
du -sm "$out"/*
