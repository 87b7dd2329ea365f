#!/bin/sh
# build-deepspeed.sh ACCELERATOR OPS PINS OUT: a wheel of DeepSpeed with these ops compiled into it.
#
# OPS are names as in DS_BUILD_<name>. What nvcc compiles needs a toolkit of torch's CUDA version at /toolkit/cuda-*.
set -eu
accelerator=$1 ops=$2 pins=$3 out=$4

for op in $ops; do export "DS_BUILD_$op=1"; done
for toolkit in /toolkit/cuda-*.*; do [ ! -x "$toolkit/bin/nvcc" ] || export CUDA_HOME="$toolkit"; done

uv pip install --requirement "$pins/deepspeed-build.txt"
CXX=/images/portable-c++.sh DS_ENABLE_NINJA=1 DS_ACCELERATOR="$accelerator" HOME=/root \
  python -m pip wheel --no-deps --no-build-isolation --no-binary deepspeed --wheel-dir "$out" --requirement "$pins/deepspeed.txt"

# An op that DeepSpeed left out would be compiled on a node later, or rather fail there.
python -c '
import sys
import zipfile

wheel, ops = sys.argv[1], sys.argv[2].split()
libraries = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
missing = [op for op in ops if not any(op.lower() in name for name in libraries)]
sys.exit(f"not in {wheel}: {missing}; it has {libraries}" if missing else 0)
' "$out"/*.whl "$ops"
