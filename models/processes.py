"""What starts the processes of other nodes."""

from __future__ import annotations

import os

from els.errors import InputError, check_whole

# Set by torchrun, SLURM, MPI and LSF, and by hand, on each node that they start a process on.
_SET_BY_LAUNCHERS = (
    "TORCHELASTIC_RUN_ID",
    "SLURM_NTASKS",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "LSB_JOBID",
    "MASTER_ADDR",
    "NODE_RANK",
)


def check_nodes(num_nodes: int) -> None:
    """Refuse several nodes where nothing has started processes on them: they would be waited for.

    Raises:
        InputError: with what starts them.
    """
    check_whole("num_nodes", num_nodes, 1)
    if num_nodes > 1 and not any(map(os.environ.get, _SET_BY_LAUNCHERS)):
        raise InputError(
            f"num_nodes is {num_nodes}, but nothing has started the others: start the command on "
            "each node with torchrun, or with srun of SLURM"
        )
