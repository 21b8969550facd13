"""Compiles the kernels to PTX, which the CUDA driver compiles for the card: `python compile.py` writes kernels.bin.

No GPU is needed. The file is gzip of JSON: the CRC-32 of the sources and, for each variant, its constants, the PTX's
entry, the threads of a block and the dynamic shared memory in bytes.
"""

import gzip
import json
import os
import pathlib
import re
import zlib

os.environ.setdefault("TRITON_DISABLE_LINE_INFO", "1")  # before Triton is imported
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import kernels
import variants

HERE = pathlib.Path(__file__).parent
SOURCES = ["kernels.py", "variants.py"]
PTX_VERSION = 80  # CUDA 12.0's, so that every driver that ONNX Runtime's CUDA build runs on knows it
FLOAT32 = {"attention": {"lse", "delta"}, "group": {"partial", "sums", "gamma", "beta"}}
COUNTS = {"n", "m", "heads", "rows", "width", "positions", "groups"}


def kind(kernel, name):
    """Type of a parameter; all tensors begin at multiples of 16 bytes."""
    if name in ("scale", "epsilon"):
        return "fp32"
    if name in COUNTS:
        return "i32"
    full = name in FLOAT32.get(kernel.split("_")[0], ())
    return "*fp32" if full else "*fp16"


def compile_one(name, constants, options, capability):
    function = getattr(kernels, name)
    arguments = [a for a in function.arg_names if a not in constants]
    signature = {a: kind(name, a) if a in arguments else "constexpr" for a in function.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, a in enumerate(function.arg_names) if signature[a].startswith("*")}
    source = ASTSource(function, signature, constants, aligned)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={**options, "ptx_version": PTX_VERSION})
    ptx = re.sub(r"//[^\n]*", "", built.asm["ptx"])
    ptx = re.sub(r"\s*\n\s*", "\n", ptx)
    return {
        "name": name,
        "variant": {k: int(v) for k, v in constants.items() if k != "padded"},
        "capability": capability,
        "entry": built.metadata.name,
        "threads": built.metadata.num_warps * 32,
        "shared": built.metadata.shared,
        "ptx": ptx,
    }


def main():
    source = zlib.crc32(b"".join((HERE / name).read_bytes() for name in SOURCES))
    built = [compile_one(*variant, capability) for capability in (80, 90) for variant in variants.every(capability)]
    data = json.dumps({"source": source, "kernels": built}, separators=(",", ":")).encode()
    (HERE / "kernels.bin").write_bytes(gzip.compress(data, 9, mtime=0))
    for kernel in built:
        print(f"{kernel['name']:<30} {kernel['variant']} sm_{kernel['capability']} {kernel['threads']} threads, "
              f"{kernel['shared']} bytes shared, {len(kernel['ptx'])} bytes of PTX")
    print(f"{len(data)} bytes, {(HERE / 'kernels.bin').stat().st_size} compressed")


if __name__ == "__main__":
    main()
