"""What the machine at hand can do."""

from __future__ import annotations

from pathlib import Path


def cpu_has_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 matrices itself; elsewhere bf16 would be slower."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return " avx512_bf16" in flags or " amx_bf16" in flags
