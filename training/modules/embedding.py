"""Embedding tables of raw ids. Row 0 of each is shared by all ids without a row of their own, and begins as zeros.

Tables are updated inside the backward pass by row-wise Adagrad, so that the cost of a step depends on the rows that it
touches, not on the table's size. On a GPU the kernels are FBGEMM's table-batched embeddings; on a CPU, where those are
slower (docs/adr/0008), they are our native ones (`training/native`). Where neither is available, plain torch computes
equal results. The tables of all features of one width are concatenated to one, so that a step makes one look-up and one
update for each width. Where several processes train, each holds a part of the rows (`training/modules/sharded.py`).

Row-wise Adagrad (as in DLRM, arXiv 1906.00091, section 3, and FBGEMM): with g the sum of a row's gradients in a step,
`square += mean(g^2); row -= rate * g / (sqrt(square) + 1e-8)`.

Shapes: B rows of a batch, F features, N look-ups, D width, V rows of a table.
"""

from __future__ import annotations

import ctypes
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training import native, processes
from training.modules.sharded import ShardedTable
from training.native import choice

Kernel = Literal["native", "fbgemm", "torch"]

EPSILON = 1e-8
_INITIAL_STD = 0.02
_BLOCKS = 16  # into how many blocks a native step divides the rows
_WORTH_THREADS = 4096  # with fewer look-ups than this, a native step uses one thread


def seeded(*parts: object) -> torch.Generator:
    """Returns a CPU generator whose seed is a hash of the parts, so that it does not depend on the order in which modules are made.

    Args:
        parts: what identifies the generator, such as the recipe's seed and a feature's name.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Table(nn.Module):
    """One table, which the backward pass of each look-up updates: by native code, or by plain torch with equal results.

    Args:
        rows: the number of rows, V.
        width: the width of a row, D.
        in_torch: whether to use plain torch even where there is native code.

    Attributes:
        learning_rate: the rate of row-wise Adagrad; the engine sets it before a backward pass.
    """

    def __init__(self, rows: int, width: int, *, in_torch: bool = False) -> None:
        super().__init__()
        self.learning_rate = 0.0
        self._in_torch = in_torch
        for name, shape in (("_weight", (rows, width)), ("_square", (rows,))):
            values = torch.empty(shape)
            native.use_huge_pages(values)
            self.register_buffer(name, values.zero_(), persistent=False)
        # An empty tensor that requires a gradient, so that autograd calls `backward` of a look-up: the table itself does not.
        self._anchor = torch.zeros(0, requires_grad=True)

    @property
    def weight(self) -> Tensor:
        """V x D."""
        return self.get_buffer("_weight")

    @property
    def square(self) -> Tensor:
        """V: Adagrad's sums of squares."""
        return self.get_buffer("_square")

    def forward(self, rows_N: Tensor) -> Tensor:
        """N -> N x D."""
        found: Tensor = _LookUp.apply(self._anchor, rows_N.contiguous(), self)
        return found

    @torch.no_grad()
    def rows(self, rows_N: Tensor) -> Tensor:
        """N -> N x D, without a backward pass."""
        library = self._library()
        if library is None:
            return self.weight.index_select(0, rows_N)
        found_ND = self.weight.new_empty(len(rows_N), self.weight.shape[1])
        if library.look_up(
            self._sizes(rows_N), native.address(rows_N), native.address(self.weight), native.address(found_ND)
        ):
            raise IndexError(
                f"expected rows 0 .. {len(self.weight) - 1} of the table, found {int(rows_N.min())} .. {int(rows_N.max())}"
            )
        return found_ND

    @torch.no_grad()
    def update(self, rows_N: Tensor, gradient_ND: Tensor) -> None:
        """Makes one step of row-wise Adagrad on the rows that were looked up.

        Args:
            rows_N: the row of each look-up.
            gradient_ND: the gradient of each; those of the same row are summed first, in the order of the look-ups.
        """
        library = self._library()
        if library is not None:
            gradient_ND = gradient_ND.contiguous()
            library.update(
                self._sizes(rows_N),
                native.address(rows_N),
                native.address(gradient_ND),
                native.address(self.weight),
                native.address(self.square),
                (ctypes.c_double * 2)(self.learning_rate, EPSILON),
            )
            return
        rows_N, order = torch.sort(rows_N, stable=True)
        rows_U, counts_U = torch.unique_consecutive(rows_N, return_counts=True)
        offsets = torch.zeros(len(rows_U) + 1, dtype=torch.int64, device=rows_N.device)
        torch.cumsum(counts_U, 0, out=offsets[1:])
        gradient_UD = torch.segment_reduce(gradient_ND[order], "sum", offsets=offsets, axis=0, initial=0.0, unsafe=True)
        square_U = self.square[rows_U] + gradient_UD.square().mean(dim=1)
        self.square.index_copy_(0, rows_U, square_U)
        self.weight.index_add_(
            0, rows_U, gradient_UD.mul_((-self.learning_rate / (square_U.sqrt() + EPSILON))[:, None])
        )

    def _library(self) -> Any:
        on_cpu = self.weight.device.type == "cpu" and self.weight.dtype == torch.float32
        return native.library("row_wise_adagrad") if on_cpu and not self._in_torch else None

    def _sizes(self, rows_N: Tensor) -> Any:
        assert rows_N.dtype == torch.int64
        threads = torch.get_num_threads() if len(rows_N) >= _WORTH_THREADS else 1
        return native.integers(len(rows_N), self.weight.shape[1], threads, _BLOCKS, len(self.weight))


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, rows_N: Tensor, table: Table) -> Tensor:
        ctx.save_for_backward(rows_N)
        ctx.table = table
        return table.rows(rows_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        (rows_N,) = ctx.saved_tensors
        ctx.table.update(rows_N, gradients[0])
        return None, None, None


class FbgemmTable(nn.Module):
    """A table like `Table`, by FBGEMM's kernels.

    Args:
        rows: the number of rows, V.
        width: the width of a row, D; a multiple of 4.
        device: where the table lies.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation, PoolingMode
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        super().__init__()
        on_gpu = device.type == "cuda"
        place = (
            (EmbeddingLocation.DEVICE, ComputeDevice.CUDA) if on_gpu else (EmbeddingLocation.HOST, ComputeDevice.CPU)
        )
        # In a tuple, so that torch does not count its weights among the model's parameters: this module optimises them itself.
        self._held = (
            SplitTableBatchedEmbeddingBagsCodegen(
                [(rows, width, *place)],
                optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
                eps=EPSILON,
                pooling_mode=PoolingMode.SUM,
                bounds_check_mode=BoundsCheckMode.NONE,
                device=device,
            ),
        )
        self.weight.zero_()
        self._offsets = torch.arange(1, device=device)

    @property
    def weight(self) -> Tensor:
        """V x D."""
        weight: Tensor = self._held[0].split_embedding_weights()[0]
        return weight

    @property
    def square(self) -> Tensor:
        """V: Adagrad's sums of squares."""
        square: Tensor = self._held[0].split_optimizer_states()[0][0]
        return square

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next backward pass."""
        return float(self._held[0].get_learning_rate())

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._held[0].set_learning_rate(value)

    def forward(self, rows_N: Tensor) -> Tensor:
        """N -> N x D: each look-up is a bag of one row."""
        if len(self._offsets) <= len(rows_N):
            self._offsets = torch.arange(2 * len(rows_N) + 1, device=rows_N.device)
        found: Tensor = self._held[0](rows_N, self._offsets[: len(rows_N) + 1])
        return found


class FrozenTable(nn.Module):
    """A table that is only read, by torch's own operations.

    Args:
        weight: V x D.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, rows_N: Tensor) -> Tensor:
        """N -> N x D."""
        return self.get_buffer("weight").index_select(0, rows_N)


class IdEmbeddings(nn.Module):
    """The embedding tables of a model's categorical features.

    Args:
        row_cnts: for each feature, by name and in the model's order: the number of its rows, the shared row 0 included.
        dims: the width of each feature's rows.
        seed: the seed from which fresh rows are drawn.
        device: where the tables lie.
        kernel: what updates them. By default that is native code on a CPU where it has proved faster than torch, else
            FBGEMM if it is installed and takes the width, else plain torch.

    Attributes:
        tables: one table for each width, by the width; it holds the rows of all features of that width, one after the other.
    """

    def __init__(
        self,
        row_cnts: Mapping[str, int],
        dims: Mapping[str, int],
        *,
        seed: int,
        device: torch.device | str = "cpu",
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(row_cnts)
        self._rows = dict(row_cnts)
        self._dims = {name: dims[name] for name in self.names}
        self._starts: dict[str, int] = {}  # where a feature's rows begin in the table of its width
        self._columns: dict[str, slice] = {}  # which columns of the result of `forward` are a feature's vector
        self._members: dict[str, list[int]] = {}  # the positions of a width's features in the model's order
        self.tables = nn.ModuleDict()
        column = 0
        for width in dict.fromkeys(self._dims.values()):
            members, start = [number for number, name in enumerate(self.names) if self._dims[name] == width], 0
            for name in (self.names[number] for number in members):
                self._starts[name], start = start, start + self._rows[name]
                self._columns[name], column = slice(column, column + width), column + width
            self._members[str(width)] = members
            self.tables[str(width)] = _table(start, width, torch.device(device), kernel)
            starts = torch.tensor([self._starts[self.names[number]] for number in members], device=device)
            self.register_buffer(f"_starts_{width}", starts, persistent=False)
        self.width = column
        with torch.no_grad():
            for name in self.names:
                fresh = torch.randn(self._rows[name] - 1, self._dims[name], generator=seeded(seed, name))
                self._keep(name, fresh.mul_(_INITIAL_STD))

    def columns(self, name: str) -> slice:
        """Returns which columns of the result of `forward` are a feature's vector."""
        return self._columns[name]

    def weight(self, name: str) -> Tensor:
        """Returns a feature's rows, V x D.

        In a single process this is a view: changing it changes the table. Where several processes train, all of them must
        call it together, and only the first one gets values, as a copy (see `write_back`).
        """
        return self._of(name, "weight")

    def square(self, name: str) -> Tensor:
        """Returns Adagrad's sums of squares of a feature's rows, V, in the same way as `weight`."""
        return self._of(name, "square")

    def row_cnt(self, name: str) -> int:
        """Returns the number of a feature's rows, V."""
        return self._rows[name]

    def forward(self, rows_BF: Tensor, more: Sequence[tuple[str, Tensor]] = ()) -> tuple[Tensor, list[Tensor]]:
        """Looks up the vectors of a batch, and of further rows in the same step.

        Args:
            rows_BF: the row of each feature for each sample, features in the model's order.
            more: further look-ups, each the name of a feature and rows (N) of its table.

        Returns:
            The features' vectors side by side, B x (sum of widths), see `columns`; and the vectors of each of `more`, N x D.
        """
        own, found = [], [torch.empty(0)] * len(more)
        for width, table in self.tables.items():
            members = self._members[width]
            rows = rows_BF if len(members) == len(self.names) else rows_BF[:, members]
            asked = [number for number, (name, _) in enumerate(more) if str(self._dims[name]) == width]
            parts = self._step(
                table, [rows + self.get_buffer(f"_starts_{width}"), *(self._placed(*more[number]) for number in asked)]
            )
            own.append(parts[0].reshape(rows_BF.shape[0], -1))
            for number, part in zip(asked, parts[1:], strict=True):
                found[number] = part
        return own[0] if len(own) == 1 else torch.cat(own, dim=1), found

    def look_up(self, wanted: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Looks up the vectors (N x D) of rows (N) of features.

        All look-ups of a step belong in one call, since the backward pass of each call is an update of its own.

        Args:
            wanted: for each look-up, the name of a feature and rows of its table.
        """
        found = [torch.empty(0)] * len(wanted)
        for width, table in self.tables.items():
            asked = [number for number, (name, _) in enumerate(wanted) if str(self._dims[name]) == width]
            if not asked:
                continue
            for number, part in zip(
                asked, self._step(table, [self._placed(*wanted[number]) for number in asked]), strict=True
            ):
                found[number] = part
        return found

    def freeze(self) -> None:
        """Replaces the tables by ones that are only read, with torch's own operations, whatever kernel has trained them.

        Not for tables that lie in several processes.
        """
        for width, table in self.tables.items():
            weight: Tensor = getattr(table, "weight")  # noqa: B009
            self.tables[width] = FrozenTable(weight.detach())

    def _placed(self, name: str, rows_N: Tensor) -> Tensor:
        return rows_N + self._starts[name]

    @staticmethod
    def _step(table: Any, rows: Sequence[Tensor]) -> Sequence[Tensor]:
        flat = [part.reshape(-1) for part in rows]
        vectors: Tensor = table(torch.cat(flat) if len(flat) > 1 else flat[0])
        parts: Sequence[Tensor] = vectors.split([part.shape[0] for part in flat])
        return parts

    def _of(self, name: str, what: str) -> Tensor:
        table = self.tables[str(self._dims[name])]
        if isinstance(table, ShardedTable):
            return table.read(what, self._starts[name], self._rows[name])
        values: Tensor = getattr(table, what)
        return values[self._starts[name] : self._starts[name] + self._rows[name]]

    def _keep(self, name: str, fresh: Tensor) -> None:
        """Stores fresh values for all rows of a feature but the shared one."""
        table = self.tables[str(self._dims[name])]
        if isinstance(table, ShardedTable):
            table.keep("weight", self._starts[name] + 1, fresh)
        else:
            self.weight(name)[1:].copy_(fresh)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Saves the rows by feature, so that a checkpoint does not depend on which features share a table."""
        for name in self.names:
            destination[f"{prefix}{name}.weight"] = self.weight(name)
            destination[f"{prefix}{name}.square"] = self.square(name)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
        """Loads the rows by feature; where several processes train, those that the first process was given."""
        for name in self.names:
            table = self.tables[str(self._dims[name])]
            for what in ("weight", "square"):
                values = state_dict[f"{prefix}{name}.{what}"]
                if isinstance(table, ShardedTable):
                    table.write(what, self._starts[name], values)
                else:
                    self._of(name, what).copy_(values)


def write_back(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads changed tensors of a model's `state_dict` back into the model, if several processes train it.

    The tensors of its tables are copies then; in a single process they are the tables themselves, and nothing is to be done.

    Args:
        model: the model.
        state: its `state_dict`, with changed tensors.
    """
    if processes.count() > 1:
        model.load_state_dict(state)


def table_tensors(name: str) -> frozenset[str]:
    """Returns the names of a feature's tensors in the state of a model whose attribute `embeddings` holds its tables."""
    return frozenset({f"embeddings.{name}.weight", f"embeddings.{name}.square"})


def _table(rows: int, width: int, device: torch.device, kernel: Kernel | None) -> Any:
    if processes.count() > 1:
        return ShardedTable(rows, width, device, EPSILON)
    if kernel is None:  # chosen by measurements: docs/adr/0008
        quick_here = device.type == "cpu" and choice.serving("row_wise_adagrad", problem) is not None
        kernel = "native" if quick_here else "fbgemm" if width % 4 == 0 and _has_fbgemm() else "torch"
    if kernel == "fbgemm":
        assert _has_fbgemm(), "FBGEMM is not installed"
        return FbgemmTable(rows, width, device)
    return Table(rows, width, in_torch=kernel == "torch").to(device)


def _has_fbgemm() -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of experimental operations that its wheel does not have
            import fbgemm_gpu
            import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def problem() -> choice.Ways:
    """The problem of the trial: a look-up of 8,192 rows and the update by their gradients."""
    torch.manual_seed(0)
    rows_N, gradient_ND, ways = torch.randint(10_000, (8192,)), torch.randn(8192, 16), []
    for in_torch in (False, True):
        table = Table(10_000, 16, in_torch=in_torch)
        table.learning_rate = 0.1

        def step(table: Table = table) -> list[Tensor]:
            found_ND = table(rows_N)
            found_ND.backward(gradient_ND)
            return [found_ND.detach(), table.weight, table.square]

        ways.append(step)
    return choice.Ways(native=ways[0], torch=ways[1])
