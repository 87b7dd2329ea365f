#!/bin/sh
# The C++ compiler for a machine that is not this one. DeepSpeed compiles for the processor that it finds itself on
# (`-march=native`, and AVX-512 where there is some), and such an op ends with SIGILL on an older node.
# Here it is x86-64-v3 (AVX2 and FMA: Intel since 2013, AMD since 2015); elsewhere the compiler's own choice.
# Debug symbols stay out: they are nine tenths of an op.
set -eu
case $(uname -m) in
  x86_64) march=-march=x86-64-v3 simd=-D__AVX256__ ;;
  *) march='' simd='' ;;
esac
for argument; do
  shift
  case $argument in
    -march=native) argument=$march ;;
    -D__AVX512__ | -D__AVX256__ | -D__SCALAR__) argument=${simd:-$argument} ;;
    -g) argument='' ;;
  esac
  [ -z "$argument" ] || set -- "$@" "$argument"
done
exec c++ "$@"
