"""Eight simulated devices, no silent broadcasting, and a compile cache that the next run of the suite finds.

Most tests compile for longer than they compute. So programs are compiled without LLVM's expensive passes, fusions by
XLA's plain emitter rather than through MLIR, and each program as one piece: that takes a quarter of the time. The
processes that tests start inherit it.

Collectives come one after the other: where a device runs several at a time, simulated devices on few cores can use up
all threads with waiting for each other, and after 40 seconds XLA aborts the process.

Tracing leaves many objects that die at once; looking for cycles as often as Python does takes a sixth of the time.
"""

import gc
import importlib.metadata
import os

_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
]
if (
    int(importlib.metadata.version("jaxlib").split(".")[1]) == 10
):  # later ones have no such flag: they emit only one way
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip()

import jax  # noqa: E402  it reads the flags

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/t5x_like/jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

gc.set_threshold(100_000, 20, 100)
