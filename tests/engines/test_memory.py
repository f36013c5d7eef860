from pathlib import Path

import pytest
import torch

from ewc_hf.engines import peak_memory_bytes, reset_peak_memory

SIZE = 200_000_000
ENOUGH = 150_000_000


def allocate_and_free():
    torch.ones(SIZE, dtype=torch.uint8, device="cuda" if torch.cuda.is_available() else "cpu")


def resident(which):
    """Bytes, those at this moment (`VmRSS`) or the most there were (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


def system_forgets_peaks():
    """Whether the kernel does what `reset_peak_memory` asks of it, tried without the function."""
    if torch.cuda.is_available():
        return True
    allocate_and_free()
    try:
        before = resident("VmHWM")
        Path("/proc/self/clear_refs").write_text("5")
        return before - resident("VmHWM") > ENOUGH
    except (OSError, StopIteration):
        return False


def test_the_peak_counts_what_was_freed():
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else resident("VmRSS")
    allocate_and_free()
    assert peak_memory_bytes() >= before + ENOUGH


def test_the_peak_is_measured_since_the_reset():
    if not system_forgets_peaks():
        pytest.skip("this system keeps a process's highest resident memory for good")
    allocate_and_free()
    high = peak_memory_bytes()
    reset_peak_memory()
    baseline = peak_memory_bytes()
    assert high - baseline >= ENOUGH
    allocate_and_free()
    assert ENOUGH <= peak_memory_bytes() - baseline <= 2 * SIZE


def test_a_system_that_refuses_to_forget_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ewc_hf.engines.memory._CLEAR", tmp_path)  # writing to a folder fails
    reset_peak_memory()
    assert peak_memory_bytes() > 0


def test_without_proc_the_resource_usage_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ewc_hf.engines.memory._STATUS", tmp_path / "status")
    allocate_and_free()
    assert SIZE <= peak_memory_bytes() < 1000 * SIZE
