"""The table of `nvidia-smi topo -m`, as it prints it for different nodes."""

from __future__ import annotations

from megavox.memory.topology import gpu_links, links_of, without_direct_link

TWO_PAIRS = """
\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tmlx5_0\tCPU Affinity\tNUMA Affinity\x1b[0m
GPU0\t X \tPIX\tSYS\tSYS\tPIX\t0-11\t0
GPU1\tPIX\t X \tSYS\tSYS\tPIX\t0-11\t0
GPU2\tSYS\tSYS\t X \tPIX\tSYS\t12-23\t1
GPU3\tSYS\tSYS\tPIX\t X \tSYS\t12-23\t1
mlx5_0\tPIX\tPIX\tSYS\tSYS\t X

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
"""
NVLINK = """
        GPU0    GPU1    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      NV18    0-63    0               N/A
GPU1    NV18     X      64-127  1               N/A
"""


def test_pairs_without_a_direct_link_are_named() -> None:
    links = links_of(TWO_PAIRS)
    assert links == {"0-1": "PIX", "0-2": "SYS", "0-3": "SYS", "1-2": "SYS", "1-3": "SYS", "2-3": "PIX"}
    assert without_direct_link(links) == ["0-2", "0-3", "1-2", "1-3"]


def test_nvlink_is_direct() -> None:
    assert links_of(NVLINK) == {"0-1": "NV18"} and without_direct_link(links_of(NVLINK)) == []


def test_one_gpu_or_none_has_no_links() -> None:
    assert links_of("\tGPU0\tCPU Affinity\nGPU0\t X \t0-3\n") == {} == links_of("")
    assert isinstance(gpu_links(), dict)
