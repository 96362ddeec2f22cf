#!/usr/bin/env bash
# On the GPU machine, once for each folder that pack.sh made:  bash .gpu-kit/1/there.sh
# Keeps what the folder holds in $KIT (/tmp/kit); once every piece is there, installs all of it into $SITE (/tmp/site):
#   export PYTHONPATH=/tmp/site:.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kit=${KIT:-/tmp/kit} site=${SITE:-/tmp/site}
mkdir -p "$kit"; find "$here" -maxdepth 1 -type f ! -name there.sh -exec cp {} "$kit/" \;
wanted=$(cat "$kit/pieces"); have=$(find "$kit" -name 'piece.*' | wc -l)
[ "$have" -eq "$wanted" ] || { echo "$have of $wanted pieces are here"; exit 0; }
mkdir -p "$kit/wheels"; cat "$kit"/piece.* | tar -C "$kit/wheels" -xf -; rm "$kit"/piece.*
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$kit"/wheels/*.whl
SITE=$site python3 - <<'PYTHON'
import os
from importlib.metadata import distributions
print("installed:", ", ".join(sorted(f"{d.name} {d.version}" for d in distributions(path=[os.environ["SITE"]]))))
PYTHON
