"""How the GPUs of a node are linked, as `nvidia-smi topo -m` tells."""

from __future__ import annotations

import re
import subprocess

# Its words, from near to far: NVLink, one or several PCIe switches, the same host bridge, the same processor, another.
DIRECT = re.compile(r"NV\d+|PIX|PXB")


def gpu_links() -> dict[str, str]:
    """The link of every pair of GPUs of this machine, "0-1" -> "NV2"; empty without GPUs."""
    try:
        done = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return links_of(done.stdout) if done.returncode == 0 else {}


def links_of(text: str) -> dict[str, str]:
    """The pairs in the table that `nvidia-smi topo -m` prints."""
    rows = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]  # it underlines the head
    table = {int(row[0][3:]): row[1:] for row in rows if row and re.fullmatch(r"GPU\d+", row[0]) and "X" in row}
    return {f"{one}-{other}": table[one][other] for one in table for other in table
            if one < other and other < len(table[one])}


def without_direct_link(links: dict[str, str]) -> list[str]:
    """Pairs whose traffic goes through the processor."""
    return [pair for pair, link in links.items() if not DIRECT.fullmatch(link)]
