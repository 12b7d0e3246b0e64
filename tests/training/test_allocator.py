"""Memory that is freed and taken again is not asked of the system again."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from fomo_dagster.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [np.empty({mebibytes} * 2**20 - 4096, np.uint8) for _ in range(4)]
        for block in blocks:
            block.fill(1)
        del block, blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    keep_freed_memory()
print(faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such settings")
@pytest.mark.parametrize("mebibytes", [8, 48])
def test_blocks_that_were_freed_are_used_again(mebibytes):
    programs = (FAULTS.format(keep=keep, mebibytes=mebibytes) for keep in (False, True))
    taken, kept = (
        int(subprocess.check_output([sys.executable, "-c", program])) for program in programs
    )
    assert kept < taken / 5
