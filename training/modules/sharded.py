"""An embedding table whose rows are divided among all processes by TorchRec, for tables that are too large for one device.

TorchRec sends each look-up to the process that holds the row, and sends the vector back. In the backward pass it updates
rows by FBGEMM's row-wise Adagrad with the mean of the processes' gradients. TorchRec gives each process a block of
consecutive rows of equal size. Rows are numbered by how often their ids were seen, most frequent first, so with their own
numbers nearly all look-ups would go to the first process. Therefore row r is placed in process r modulo W.

Shapes: N look-ups, D width, V rows of a table, W processes.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contracts.errors import BadInput
from training import processes

_NAME = "rows"


class ShardedTable(nn.Module):
    """A table like `Table`, but its rows are read and written by `read` and `write`, which all processes call together.

    Args:
        rows: the number of rows in all processes together, V.
        width: the width of a row, D.
        device: where this process's rows lie.
        epsilon: what row-wise Adagrad adds to the root of a row's sum of squares.

    Raises:
        BadInput: TorchRec is not installed.
    """

    def __init__(self, rows: int, width: int, device: torch.device, epsilon: float) -> None:
        super().__init__()
        self._rows = rows
        self._rows_each = -(-rows // processes.count())
        # In a tuple, so that torch does not count its weights among the model's parameters: this module optimises them itself.
        self._held = (_shard(self._rows_each * processes.count(), width, device, epsilon),)
        with torch.no_grad():
            for values in self._local().values():
                values.zero_()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next backward pass."""
        return float(self._held[0].fused_optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        optimizer = self._held[0].fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = value
        optimizer.step()  # passes the rate to the kernels, and changes no row: rows are updated in backward passes

    def forward(self, rows_N: Tensor) -> Tensor:
        """N -> N x D; all processes must call it the same number of times."""
        from torchrec import KeyedJaggedTensor

        if rows_N.device.type == "cpu" and len(rows_N) and not 0 <= int(rows_N.min()) <= int(rows_N.max()) < self._rows:
            raise IndexError(
                f"expected rows 0 .. {self._rows - 1} of the table, found {int(rows_N.min())} .. {int(rows_N.max())}"
            )
        shards = processes.count()
        placed_N = rows_N % shards * self._rows_each + rows_N // shards
        lengths = torch.tensor([len(rows_N)], device=rows_N.device)
        found: Tensor = self._held[0](KeyedJaggedTensor(keys=[_NAME], values=placed_N, lengths=lengths))[_NAME].values()
        return found

    @torch.no_grad()
    def read(self, what: str, start: int, count: int) -> Tensor:
        """Gathers some rows in the first process; all processes must call it together.

        Args:
            what: `weight`, or `square` for Adagrad's sums of squares.
            start: the first row.
            count: how many rows.

        Returns:
            In the first process the rows, in its host memory; in the others a tensor of the same shape without values.
        """
        local, shards = self._local()[what], processes.count()
        first, last = start // shards, -(-(start + count) // shards)
        own = local[first:last].contiguous()
        parts = [torch.empty_like(own) for _ in range(shards)] if processes.is_first() else None
        dist.gather(own, parts, dst=0)
        if parts is None:
            return torch.empty(count, *own.shape[1:], device="meta")
        in_turn = torch.stack([part.cpu() for part in parts], dim=1).reshape(-1, *own.shape[1:])
        return in_turn[start - first * shards :][:count]

    @torch.no_grad()
    def write(self, what: str, start: int, values: Tensor) -> None:
        """Replaces some rows by values of the first process; all processes must call it together.

        Args:
            what: `weight` or `square`.
            start: the first row.
            values: in the first process the new rows; in the others a tensor of the same shape.
        """
        if values.device.type == "meta":
            values = torch.empty(values.shape)
        device = self._local()[what].device
        values = values.contiguous().to(device if dist.get_backend() == "nccl" else "cpu")
        dist.broadcast(values, src=0)
        self.keep(what, start, values)

    @torch.no_grad()
    def keep(self, what: str, start: int, values: Tensor) -> None:
        """Replaces some rows by values that every process has; each process takes those of the rows that it holds.

        Args:
            what: `weight` or `square`.
            start: the first row.
            values: the new rows.
        """
        shards = processes.count()
        skipped = (processes.rank() - start) % shards
        own = values[skipped::shards]
        place = (start + skipped) // shards
        self._local()[what][place : place + len(own)].copy_(own)

    def _local(self) -> dict[str, Tensor]:
        """Returns this process's rows, as views of TorchRec's tensors."""
        (weight,) = self._held[0].parameters()
        (state,) = self._held[0].fused_optimizer.state.values()
        return {"weight": weight, "square": state[f"{_NAME}.momentum1"].local_shards()[0].tensor}


def _shard(rows: int, width: int, device: torch.device, epsilon: float) -> Any:
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(gpus),
        warnings.catch_warnings(),
    ):  # in a fork, since TorchRec draws initial values, which are not used, and our random numbers must not depend on that
        warnings.simplefilter("ignore")  # FBGEMM and TorchRec warn of operations that their wheels do not have
        try:
            from fbgemm_gpu.split_embedding_configs import EmbOptimType
            from torchrec import EmbeddingCollection, EmbeddingConfig
            from torchrec.distributed.embedding import EmbeddingCollectionSharder
            from torchrec.distributed.shard import shard
            from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
            from torchrec.distributed.types import ShardingEnv
        except ImportError as error:
            raise BadInput(
                "torchrun",
                "torchrec",
                expected="TorchRec, which shards tables over several processes",
                found=str(error),
                hint="`make setup` installs it for a CPU, `pip install 'tributary[training,fbgemm-gpu,sharding]'` for GPUs.",
            ) from None
        logging.getLogger("torch.fx._symbolic_trace").setLevel(
            logging.ERROR
        )  # it warns of a deprecated call in TorchRec
        whole = EmbeddingCollection(
            device=torch.device("meta"),
            tables=[EmbeddingConfig(name=_NAME, embedding_dim=width, num_embeddings=rows, feature_names=[_NAME])],
        )
        # A row that is looked up several times is sent once, but only on a GPU, where there is a kernel for it.
        sharder = EmbeddingCollectionSharder(
            use_index_dedup=device.type == "cuda",
            fused_params={"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "eps": epsilon, "learning_rate": 0.0},
        )
        plan = construct_module_sharding_plan(
            whole,
            {_NAME: row_wise(compute_kernel="fused")},
            sharder=sharder,
            world_size=processes.count(),
            local_size=processes.count_here(),
            device_type=device.type,
        )
        return shard(whole, plan, ShardingEnv.from_process_group(dist.group.WORLD), device, sharder)
