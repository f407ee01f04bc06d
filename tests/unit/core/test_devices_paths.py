"""Where things are and on what they run; CUDA by its logic alone, since no test needs a GPU."""

from __future__ import annotations

import platform
import random
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import processors
import pytest
import torch

from drstudy.core import devices, paths
from drstudy.core.devices import Compute

# --- paths -----------------------------------------------------------------------------------------


def test_parameters_paths_follow_root_and_variables(own_folders):
    assert paths.resolve("results/demo/x") == own_folders / "results/demo/x"
    assert paths.resolve("data/eyepacs") == own_folders / "data/eyepacs"
    assert paths.resolve("params/demo") == paths.root() / "params/demo"
    assert paths.resolve("../beside") == paths.root().parent / "beside"
    assert paths.resolve("/a/b") == Path("/a/b")
    assert paths.resolve("~/x") == Path.home() / "x"


def test_without_variables_the_folders_are_the_projects(monkeypatch):
    monkeypatch.delenv("DRSTUDY_DATA")
    monkeypatch.setenv("DRSTUDY_RESULTS", "")
    assert paths.data() == paths.root() / "data"
    assert paths.results() == paths.root() / "results"


@pytest.mark.parametrize(
    "path", ["results/demo/x.csv", "data/eyepacs/1.jpeg", "params/demo", "../beside/data"]
)
def test_show_is_the_inverse_of_resolve(own_folders, path):
    assert paths.show(paths.resolve(path)) == path


def test_a_file_in_the_projects_data_is_not_shown_as_one_in_the_moved_data(own_folders):
    path = paths.root() / "data/x.csv"
    assert paths.resolve(paths.show(path)) == path


def test_root_holds_wherever_the_kernel_starts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (paths.root() / "notebooks").is_dir()
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "drstudy/core/paths.py"))
    with pytest.raises(FileNotFoundError, match="pip install -e"):
        paths.root()
    for name in ("notebooks", "a/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "a/b")
    assert paths.root() == tmp_path


def test_atomic_replaces_when_done_and_leaves_nothing_when_not(tmp_path):
    path = tmp_path / "deep/a.csv"
    with paths.atomic(path) as temporary:
        assert temporary.suffix == ".csv"
        assert temporary.parent == path.parent
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"

    def interrupted():
        with paths.atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "one"
    assert [file.name for file in path.parent.iterdir()] == ["a.csv"]


def test_atomic_files_have_the_usual_permissions(tmp_path):
    with paths.atomic(tmp_path / "a") as temporary:
        temporary.touch()
    (tmp_path / "b").touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_sha256_by_the_published_vector(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert (
        paths.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


# --- devices ---------------------------------------------------------------------------------------


@pytest.fixture
def cuda(monkeypatch):
    """As on a machine with a CUDA device that has bf16 in hardware only where ``cuda.native`` says so."""

    class Device:
        native = True

    def supported(including_emulation=True):
        return including_emulation or Device.native

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    return Device


def test_auto_is_the_cpu_where_there_is_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)
    assert devices.setup() == Compute("cpu", "fp32")
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: True)
    assert devices.setup() == Compute("cpu", "bf16")
    assert devices.setup("cpu", "fp32") == Compute("cpu", "fp32")


@pytest.mark.parametrize(
    ("flag", "limit", "supported", "expected"),
    [
        ("amx_bf16", None, True, True),
        ("avx512_bf16", None, True, True),
        ("avx512f", None, True, False),
        ("amx_bf16", "AVX512_CORE_BF16", True, True),
        ("amx_bf16", "ALL", True, True),
        ("amx_bf16", "AVX512_CORE", True, False),
        ("amx_bf16", "avx2", True, False),
        ("amx_bf16", "SSE41", True, False),
        ("amx_bf16", None, False, False),
    ],
)
def test_bf16_needs_the_units_and_the_permission_to_use_them(
    monkeypatch, tmp_path, flag, limit, supported, expected
):
    """``auto`` follows the limit that oneDNN is given, not only what the processor could do."""
    file = tmp_path / "cpuinfo"
    file.write_text(f"flags\t\t: fpu avx2 {flag}\n")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported, raising=False)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
        if limit:
            monkeypatch.setenv(name, limit)
            assert devices._cpu_has_bf16(str(file)) == expected
            monkeypatch.delenv(name)
    if not limit:
        assert devices._cpu_has_bf16(str(file)) == expected
    assert not devices._cpu_has_bf16(str(tmp_path / "absent"))


def test_auto_is_fp32_under_every_lowered_kind_of_processor(monkeypatch):
    """None of the kinds that are emulated multiplies bf16 in hardware."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for kind in processors.KINDS.values():
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", kind["ONEDNN_MAX_CPU_ISA"])
        assert devices.setup() == Compute("cpu", "fp32")


def test_auto_precision_on_cuda_is_bf16_only_in_hardware(cuda):
    assert devices.setup() == Compute("cuda", "bf16")
    cuda.native = False
    assert devices.setup() == Compute("cuda", "fp16"), "the paper's RTX 2080 Ti only emulates bf16"
    assert devices.setup("cuda:1", "bf16") == Compute("cuda:1", "bf16")


def test_fp32_on_cuda_is_fp32(cuda):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    devices.setup("cuda", "fp32")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cuda",), "sees no CUDA device"),
        (("cuda:0",), "sees no CUDA device"),
        (("gpu",), "DEVICE is 'gpu'; it must be"),
        (("mps",), "DEVICE is 'mps'; it must be"),
        (("cpu", "fp16"), "needs a CUDA device"),
        (("cpu", "half"), "PRECISION is 'half'; it must be one of auto, fp32, bf16, fp16"),
        (("cpu", "fp32", -1), "THREADS is -1"),
    ],
)
def test_what_cannot_be_had_says_what_can(monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        devices.setup(*arguments)


def test_threads_are_set_or_left(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices.setup("cpu", threads=2)
    assert torch.get_num_threads() == 2
    devices.setup("cpu", threads=0)
    assert torch.get_num_threads() == 2


def test_the_seed_seeds_python_numpy_and_torch():
    def numbers(seed):
        devices.setup("cpu", seed=seed)
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002

    torch.use_deterministic_algorithms(False)
    first, again, other = numbers(1), numbers(1), numbers(2)
    assert first == again
    assert all(a != b for a, b in zip(first, other))
    assert torch.are_deterministic_algorithms_enabled()


def test_compute_on_the_cpu():
    full, half = Compute("cpu", "fp32"), Compute("cpu", "bf16")
    a = torch.eye(3)
    assert (full.dtype, half.dtype, Compute("cuda", "fp16").dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float16,
    )
    with full.autocast():
        assert (a @ a).dtype == torch.float32
    with half.autocast():
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32
    assert not full.is_cuda
    assert Compute("cuda:1", "fp16").is_cuda
    assert str(full).startswith("CPU, fp32, ")


def test_batches_of_images_are_put_channels_last_with_their_values():
    batch = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    put = Compute("cpu", "fp32").put(batch)
    assert put.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(put, batch)
    flat = torch.ones(4, 3)
    assert Compute("cpu", "fp32").put(flat) is flat


def test_packages_name_what_runs():
    found = devices.packages()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["python"].count(".") == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
def test_large_blocks_are_not_mapped_afresh_by_each_layer():
    program = """
import resource, sys
import numpy as np
from drstudy.core import devices
if sys.argv[1] == "kept":
    assert devices.keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    counts = {
        how: int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "usual")
    }  # fmt: skip
    assert counts["usual"] >= 10 * max(counts["kept"], 1)


def test_processor_line_says_what_is_lowered(monkeypatch, tmp_path):
    for variable in devices.LOWERING:
        monkeypatch.delenv(variable, raising=False)
    as_it_is = devices.processor()
    assert "cores" in as_it_is
    assert "lowered" not in as_it_is
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert devices.processor() == f"{as_it_is}, lowered to AVX2"


def test_cpu_flags_are_read_from_linux_or_are_none(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("model name\t: A\nflags\t\t: fpu avx2 amx_bf16\nflags\t\t: other\n")
    assert devices.cpu_flags(str(file)) == {"fpu", "avx2", "amx_bf16"}
    assert devices.cpu_flags(str(tmp_path / "none")) == set()


def test_calibration_takes_time_and_changes_nothing():
    torch.manual_seed(3)
    torch.set_num_threads(2)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert 0.001 < devices.calibration(repeats=1) < 120
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep and give back memory"
)
def test_freed_memory_is_kept_until_it_is_given_back():
    """In a process of its own: freed blocks below a living one stay resident, and are gone after the call."""
    code = """
import psutil, torch
from drstudy.core import devices
assert devices.keep_freed_memory()
blocks = [torch.ones(2**20) for _ in range(100)]  # 400 MiB
last = torch.ones(2**20)
blocks.clear()
kept = psutil.Process().memory_info().rss
assert devices.give_back_freed_memory()
print((kept - psutil.Process().memory_info().rss) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 200
