#!/bin/sh
# install-torch.sh BACKEND FILE: torch in the build for BACKEND (cpu, cu130, …), and the other packages in FILE.
#
# A wheel in the find-links folders of the base image comes first, then PyTorch's own index, then the package index with
# its default build. Another build than asked for is told, and ends a build for CUDA; a CPU runs any, only larger.
set -eu
backend=$1 file=$2

if ! uv pip install --quiet --no-index --no-deps "$(grep '^torch==' "$file")"; then
  uv pip install --torch-backend="$backend" --requirement "$file" || echo "install-torch.sh: PyTorch's index does not answer" >&2
fi
uv pip install --requirement "$file"

python -c '
import sys
import torch

wanted, cuda = sys.argv[1], torch.version.cuda
found = "cu" + cuda.replace(".", "") if cuda else "cpu"
print(f"install-torch.sh: torch {torch.__version__}, built for {found}")
if found != wanted:
    print(f"install-torch.sh: asked for {wanted}, found {found}", file=sys.stderr)
    sys.exit(wanted != "cpu")
' "$backend"
