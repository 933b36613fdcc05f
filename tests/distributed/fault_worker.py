"""One rank of test_faults.py: the command line, with a fault on rank 1 in step 5.

RANK=1 WORLD_SIZE=2 ... python fault_worker.py nan|kill|disk|none train RECIPE --out FOLDER
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

import torch

from entropilot.cli.main import main
from entropilot.engines.trl.checkpoints import CheckpointingTrainer
from entropilot.engines.trl.trainer import EntropyGRPOTrainer


def install(fault: str) -> None:
    """Let this rank fail in step 5: in its loss, at once, or in what it writes of its checkpoint."""
    loss, keep = EntropyGRPOTrainer._get_per_token_logps_and_entropies, CheckpointingTrainer._keep_rollout

    def logps(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = loss(self, *args, **kwargs)
        if self.state.global_step != 4 or not torch.is_grad_enabled():
            return result
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return (result[0] * torch.nan, *result[1:]) if fault == "nan" else result

    def kept(self: Any, *args: Any) -> str:
        if fault == "disk" and self.state.global_step == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return keep(self, *args)

    EntropyGRPOTrainer._get_per_token_logps_and_entropies = logps  # type: ignore[method-assign]
    CheckpointingTrainer._keep_rollout = kept  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    fault = sys.argv.pop(1)
    if os.environ["RANK"] == "1":
        install(fault)
    main()
