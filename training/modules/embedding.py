"""Embedding tables of raw ids. Row 0 of each is shared by all ids that have none of their own, and begins at zero.

Tables are updated inside the backward pass by row-wise Adagrad, so that a step costs the rows that it touches, whatever
the table's size. The kernels are FBGEMM's table-batched embeddings on a GPU, and native ones on a CPU
(`training/native`), where FBGEMM's take longer (docs/adr/0008); where neither can be had, a twin in plain torch gives
equal results. All features of one width are concatenated in one table, so that a step is one look-up and one update for
each width. Where several processes train, their rows lie in all of them (`training/modules/sharded.py`).

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
_BLOCKS, _WORTH_THREADS = 16, 4096  # blocks of a native step; from how many look-ups on it uses threads


def seeded(*parts: object) -> torch.Generator:
    """A CPU generator whose seed is a hash of the parts: independent of the order in which modules are made."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Table(nn.Module):
    """One table, updated in the backward pass of each look-up: by native code, or in plain torch with equal results.

    Args:
        rows, width: V and D.
        in_torch: never by native code.

    Attributes:
        learning_rate: of row-wise Adagrad; the engine sets it.
    """

    def __init__(self, rows: int, width: int, *, in_torch: bool = False) -> None:
        super().__init__()
        self.learning_rate = 0.0
        self._in_torch = in_torch
        for name, shape in (("_weight", (rows, width)), ("_square", (rows,))):
            values = torch.empty(shape)
            native.use_huge_pages(values)
            self.register_buffer(name, values.zero_(), persistent=False)
        # What autograd hangs the look-up on: the table itself is no leaf with a gradient.
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
        """N -> N x D, apart from autograd."""
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
        """One step of row-wise Adagrad; a row's gradients are summed first, in the order of the look-ups."""
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
    """The same by FBGEMM's kernels."""

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
        # In a tuple, so that its weights are not taken for the model's parameters: they have their optimiser with them.
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
    """The tables of a model's categorical features.

    Args:
        row_cnts: rows of each feature by name, the shared one included, in the model's order.
        dims: width of each.
        seed: of fresh rows.
        device: where the tables live.
        kernel: what they run on; by default FBGEMM's wherever it can.

    Attributes:
        tables: the features' rows by width; those of one width are concatenated.
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
        self._starts: dict[str, int] = {}  # of a feature's rows in the table of its width
        self._columns: dict[str, slice] = {}  # of a feature's vector in the result of `forward`
        self._members: dict[str, list[int]] = {}  # a width's features, by their positions
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
        """Columns of a feature in the result of `forward`."""
        return self._columns[name]

    def weight(self, name: str) -> Tensor:
        """A feature's rows, V x D. In one process changing it changes the table; of several, the first alone gets values (`state_dict`)."""
        return self._of(name, "weight")

    def square(self, name: str) -> Tensor:
        """Adagrad's sums of squares of a feature's rows, V; see `weight`."""
        return self._of(name, "square")

    def row_cnt(self, name: str) -> int:
        """V of a feature."""
        return self._rows[name]

    def forward(self, rows_BF: Tensor, more: Sequence[tuple[str, Tensor]] = ()) -> tuple[Tensor, list[Tensor]]:
        """Returns the concatenated vectors of the features, and those of more rows in the same step.

        Args:
            rows_BF: rows of each feature, in the model's order.
            more: a feature, and rows (N) of its table.

        Returns:
            B x (sum of widths), see `columns`; and N x D for each of `more`.
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
        """Vectors (N x D) of rows (N) of features. All look-ups of a step belong in one call: each call is an update."""
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
        """From here on the tables are only read, whatever kernel trained them. Not where several processes share them."""
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
        """Fresh rows of a feature, all but the shared one."""
        table = self.tables[str(self._dims[name])]
        if isinstance(table, ShardedTable):
            table.keep("weight", self._starts[name] + 1, fresh)
        else:
            self.weight(name)[1:].copy_(fresh)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """By feature, whatever lies in one table with what: a checkpoint outlives the layout."""
        for name in self.names:
            destination[f"{prefix}{name}.weight"] = self.weight(name)
            destination[f"{prefix}{name}.square"] = self.square(name)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
        """Of several processes the first one's values are taken, whatever the others have."""
        for name in self.names:
            table = self.tables[str(self._dims[name])]
            for what in ("weight", "square"):
                values = state_dict[f"{prefix}{name}.{what}"]
                if isinstance(table, ShardedTable):
                    table.write(what, self._starts[name], values)
                else:
                    self._of(name, what).copy_(values)


def write_back(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Hands changed tensors of a model's `state_dict` back to it: those of tables that lie in several processes are copies."""
    if processes.count() > 1:
        model.load_state_dict(state)


def table_tensors(name: str) -> frozenset[str]:
    """Names of a feature's tensors in the state of a model that keeps its tables as `embeddings`."""
    return frozenset({f"embeddings.{name}.weight", f"embeddings.{name}.square"})


def _table(rows: int, width: int, device: torch.device, kernel: Kernel | None) -> Any:
    if processes.count() > 1:
        return ShardedTable(rows, width, device, EPSILON)
    if kernel is None:  # by what was measured: docs/adr/0008
        quick_here = device.type == "cpu" and choice.serving("row_wise_adagrad", problem) is not None
        kernel = "native" if quick_here else "fbgemm" if width % 4 == 0 and _has_fbgemm() else "torch"
    if kernel == "fbgemm":
        assert _has_fbgemm(), "FBGEMM is not installed"
        return FbgemmTable(rows, width, device)
    return Table(rows, width, in_torch=kernel == "torch").to(device)


def _has_fbgemm() -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it speaks of experimental operations that its wheel lacks
            import fbgemm_gpu
            import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def problem() -> choice.Ways:
    """A look-up of 8,192 rows and the step on them."""
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
