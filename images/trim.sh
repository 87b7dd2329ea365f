#!/bin/sh
# trim.sh [cpu|cuda]: takes out of /opt/venv what no job runs: packages' own tests, and libraries for other accelerators.
set -eu
packages=$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
cd "$packages"

rm -rf torch/test pandas/tests pyarrow/tests matplotlib/tests sympy/*/tests sympy/*/*/tests
# Compilers and tools of torch's own build; torch_shm_manager is what data loaders share memory by.
find torch/bin -type f ! -name torch_shm_manager -delete

case ${1:-} in
  cpu) rm -f bitsandbytes/libbitsandbytes_cuda*.so bitsandbytes/libbitsandbytes_rocm*.so bitsandbytes/libbitsandbytes_xpu*.so ;;
  cuda)
    cuda=$(python -c 'import torch; print((torch.version.cuda or "").replace(".", ""))')
    find bitsandbytes -name 'libbitsandbytes_*.so' ! -name libbitsandbytes_cpu.so ! -name "libbitsandbytes_cuda$cuda.so" -delete
    ;;
esac
