#!/usr/bin/env bash
# On the GPU machine, in the checkout, once there.sh has installed everything:  measure.sh OUT [MINUTES]
# Exports what the suite needs, runs tests/gpu, each file in a process of its own, which is killed where it hangs, and
# then the suite for so many minutes (4). Logs and results go to OUT; `digits` in $BUNDLES is taken where it is there.
set -uo pipefail
out=$1 minutes=${2:-4}
site=${SITE:-/tmp/site} bundles=${BUNDLES:-/tmp/bundles}
export PYTHONPATH=$site:. PYTHONUNBUFFERED=1
ln -sfn "$PWD/cli" "$site/riformer_deploy_cli"
mkdir -p "$out" "$bundles"
OMP_NUM_THREADS=2 python3 benchmarks/gpu_bundles.py "$bundles" --workers 6 >"$out/bundles.log" 2>&1
for file in tests/gpu/test_*.py; do
  log=$out/$(basename "$file" .py).log
  timeout --signal KILL 240 python3 -m pytest "$file" --run-gpu --bundles "$bundles" -v --show-capture=no \
    -p no:cacheprovider -o faulthandler_timeout=60 --durations=5 >"$log" 2>&1
  echo "$file ended with $?"; tail -n 12 "$log"
done
python3 benchmarks/gpu_suite.py --bundles "$bundles" --minutes "$minutes" -o "$out/suite.json" >"$out/suite.log" 2>&1
echo "the suite ended with $?"; tail -n 40 "$out/suite.log"
