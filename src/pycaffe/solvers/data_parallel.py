"""Several solvers as one: each a process with a device and a part of the data, their gradients averaged (parallel.cpp).

    process of rank 0   forward, backward ─┐                              ┌─ update, test, log, snapshot
    process of rank 1   forward, backward ─┼─ sum / solver_count to all ──┼─ update
    process of rank 2   forward, backward ─┘                              └─ update

All begin with the parameters of rank 0 and make the same updates, so their parameters stay the same. The batch size of
the prototxt is that of one process. What a forward changes by itself (BatchNorm's statistics) stays each process's own,
and that of rank 0 is saved. torch.distributed moves the numbers: by NCCL between GPUs, by gloo between CPUs.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.util import Finalize
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from pycaffe import devices, parallel
from pycaffe.blob import FloatArray
from pycaffe.errors import InputError, SolverError, SolversLost
from pycaffe.graph import Parameter
from pycaffe.layers._torch import Tensor, torch
from pycaffe.solvers.run_state import save_layers
from pycaffe.solvers.solver import Action, Solver

__all__ = ["AgreedAction", "NCCL", "SavedPlaces"]

TO_MEET = timedelta(minutes=5)  # how long a process waits for the others to come up
FOR_EVER = timedelta(days=365)  # an iteration may wait for rank 0's tests; as in the original there is no limit


def _leave(stores: list[Any], folder: str) -> None:
    """Leaves the group and lets go of its only store, whose file is in `folder`.

    One process at a time: the store says in two steps that it is done, and of two that are between them neither knows
    that it is the last, which removes the file.
    """
    torch.distributed.destroy_process_group()
    if fcntl is None:
        stores.clear()
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stores.clear()
    finally:
        os.close(lock)


class NCCL:
    """Averages the gradients of the solvers of a run (the original's class of this name).

    `solver.add_callback(nccl)` averages all gradients before each update. Where the solver's `layer_wise_reduce` is
    set (it is by default), `solver.net.after_backward(nccl)` has to be called as well: then each layer's gradients
    travel while backward goes on with the layers below. With one solver there is nothing to do.

    Args:
        solver: this process's solver.
        uid: what `new_uid` gave to all processes of the run; None for the group of torch.distributed that this process
            has joined already.

    Attributes:
        bytes_reduced: of the gradients that this process has given to be averaged; as many came back.

    Raises:
        SolverError: the others do not come.
        InputError: there is another NCCL in this process, `uid` is none, or the group has another size.
    """

    def __init__(self, solver: Solver, uid: bytes | None) -> None:
        # Neither the solver nor its net: they hold this object as a callback, and when they go the group has to close.
        everything = solver.net._graph.parameters
        self._parameters: list[Parameter] = [parameter for parameter in everything if parameter.owner is None]
        self._shares = len(self._parameters) < len(everything)
        self._layer_wise = bool(solver.param.layer_wise_reduce)
        self._iter_size = int(solver.param.iter_size)
        self.bytes_reduced = 0
        self._calls: dict[int, int] = {}
        self._under_way: list[tuple[Any, Tensor, FloatArray]] = []
        self._device = solver.net._device or devices.default_device()
        self._close: Callable[[], Any] = lambda: None
        parallel.set_multiprocess(True)
        if parallel.solver_count() > 1 and uid is None:
            self._take_group()
        elif parallel.solver_count() > 1:
            self._join(uid)

    @staticmethod
    def new_uid(folder: str | None = None) -> bytes:
        """A name for a run, which its processes find each other by: that of a file, which the last of them removes.

        Args:
            folder: where the file will be; None for the folder of temporary files.
        """
        return os.fsencode(os.path.join(folder or tempfile.gettempdir(), f"pycaffe-nccl-{uuid.uuid4().hex}"))

    def _take_group(self) -> None:
        distributed = torch.distributed
        group = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else None
        if group != (parallel.solver_rank(), parallel.solver_count()):
            raise InputError(
                f"This process is to be solver {parallel.solver_rank()} of {parallel.solver_count()}, and its group of "
                f"torch.distributed is {group!r} (rank, size). Set rank and count as in the group, or give a uid."
            )
        self._close = Finalize(self, distributed.destroy_process_group, exitpriority=0)

    def _join(self, uid: bytes | None) -> None:
        distributed = torch.distributed
        if distributed.is_initialized():
            raise InputError("This process is in a group of torch.distributed already. Use one NCCL in a process.")
        if not isinstance(uid, bytes) or not os.path.isabs(uid):
            raise InputError(f"{uid!r} is no uid. All processes of a run need the one that NCCL.new_uid() gave.")
        count, rank = parallel.solver_count(), parallel.solver_rank()
        if rank >= count:
            raise InputError(f"solver_rank {rank!r} is not below solver_count {count!r}.")
        on_gpu = self._device != "cpu"
        if on_gpu:
            torch.cuda.set_device(self._device)
        try:
            store = distributed.FileStore(os.fsdecode(uid), count)
            store.set_timeout(TO_MEET)
            backend = "nccl" if on_gpu else "gloo"
            distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=FOR_EVER)
        except RuntimeError as error:
            raise SolverError(f"Solver {rank} of {count} did not find the others: {error}") from error
        # At the end of this object or the process, that of multiprocessing too, where `atexit` is never heard.
        self._close = Finalize(self, _leave, args=([store], os.path.dirname(os.fsdecode(uid))), exitpriority=0)

    def close(self) -> None:
        """Leaves the run; nothing can be averaged any more."""
        self._close()

    # -- what solver and net call

    def bcast(self) -> None:
        """Gives every solver the parameters of rank 0."""
        if parallel.solver_count() == 1:
            return
        values = [parameter.blob.data_storage.changing()[: parameter.blob.count] for parameter in self._parameters]
        flat = self._packed(values)
        self._reached(lambda: torch.distributed.broadcast(flat, 0))
        _unpack(flat, values)

    def on_start(self) -> None:
        """Before an iteration's forward: nothing to do."""

    def on_gradients_ready(self) -> None:
        """Averages the gradients; those that travel by layers only have to arrive.

        Raises:
            SolversLost: another solver is gone.
            SolverError: layers travel and the net shares parameters.
        """
        if self._layer_wise and self._shares:
            raise SolverError(
                "Layer-wise reduce is not supported for nets with shared weights. "
                "Set `layer_wise_reduce: false` in the solver."
            )
        if parallel.solver_count() == 1:
            return
        if self._calls:
            self._arrive()
            return
        diffs = [_flat_diff(parameter) for parameter in self._parameters]
        flat = self._packed(diffs)
        self.bytes_reduced += flat.nbytes
        self._reached(lambda: torch.distributed.all_reduce(flat))
        _unpack(flat.mul_(1 / parallel.solver_count()), diffs)

    def __call__(self, layer: int) -> None:
        """After a layer's backward: its gradients set out, with the last of `iter_size` backwards.

        Raises:
            SolverError: the solver does not reduce by layers.
        """
        if not self._layer_wise:
            raise SolverError("Check failed: layer_wise_reduce. Set `layer_wise_reduce: true`, or do not reduce here.")
        if parallel.solver_count() == 1 or self._shares:
            return
        self._calls[layer] = self._calls.get(layer, 0) + 1
        if self._calls[layer] < self._iter_size:
            return
        for parameter in self._parameters:
            if parameter.layer == layer:
                self._send(_flat_diff(parameter))

    def _send(self, diff: FloatArray) -> None:
        tensor = torch.from_numpy(diff).to(self._device)
        self.bytes_reduced += tensor.nbytes
        work = self._reached(lambda: torch.distributed.all_reduce(tensor, async_op=True))
        self._under_way.append((work, tensor, diff))

    def _arrive(self) -> None:
        for work, tensor, diff in self._under_way:
            self._reached(work.wait)
            _unpack(tensor.mul_(1 / parallel.solver_count()), [diff])
        self._under_way.clear()
        self._calls.clear()

    # -- numbers on their way

    def broadcast_number(self, number: int) -> int:
        """Rank 0's number, to all."""
        if parallel.solver_count() == 1:
            return number
        tensor = torch.tensor([number], device=self._device)
        self._reached(lambda: torch.distributed.broadcast(tensor, 0))
        return int(tensor.item())

    def broadcast(self, values: list[Any]) -> list[Any]:
        """Rank 0's values, to all; as many as each gives, and they have to pickle.

        Raises:
            SolversLost: another solver is gone.
        """
        if parallel.solver_count() > 1:
            self._reached(lambda: torch.distributed.broadcast_object_list(values, 0))
        return values

    def gather(self, value: Any) -> list[Any] | None:
        """Every solver's value by rank, on rank 0; None on the others. The value has to pickle.

        Raises:
            SolversLost: another solver is gone.
        """
        if parallel.solver_count() == 1:
            return [value]
        values = [None] * parallel.solver_count() if parallel.root_solver() else None
        self._reached(lambda: torch.distributed.gather_object(value, values, 0))
        return values

    def _packed(self, arrays: Sequence[FloatArray]) -> Tensor:
        """One tensor on the device with all the values: one message costs less than one for each parameter."""
        return torch.cat([torch.from_numpy(array) for array in arrays]).to(self._device)

    def _reached(self, communicate: Callable[[], Any]) -> Any:
        """What `communicate` returns; an error of torch's as one of ours."""
        try:
            return communicate()
        except RuntimeError as error:
            raise SolversLost(
                f"Solver {parallel.solver_rank()} of {parallel.solver_count()} lost the others: one of them has "
                f"probably ended. {error}"
            ) from error


def _flat_diff(parameter: Parameter) -> FloatArray:
    return parameter.blob.diff_storage.array()[: parameter.blob.count]


def _unpack(flat: Tensor, arrays: Sequence[FloatArray]) -> None:
    """Copies a packed tensor's values to where they came from."""
    for array, part in zip(arrays, flat.split([array.size for array in arrays])):
        if part.data_ptr() != array.ctypes.data:  # a gradient that travelled from where it lies
            torch.from_numpy(array).copy_(part)


class SavedPlaces:
    """Has a snapshot save where each solver is in its data, so that the run goes on there if as many resume it.

    A callback like `AgreedAction`, after which it has to be added: it looks at what that has heard.

    Args:
        nccl: of this process.
        solver: of this process.
        agreed: of this process.
    """

    def __init__(self, nccl: NCCL, solver: Solver, agreed: AgreedAction) -> None:
        self._nccl, self._solver, self._agreed = nccl, solver, agreed

    def on_start(self) -> None:
        """Before an iteration's forward: nothing to do."""

    def on_gradients_ready(self) -> None:
        """Gathers the places where this iteration ends with a snapshot."""
        param, iteration = self._solver.param, self._solver.iter + 1
        last = iteration >= param.max_iter or self._agreed.pending is Action.STOP
        due = param.snapshot > 0 and iteration % param.snapshot == 0
        if due or self._agreed.pending is Action.SNAPSHOT or (last and param.snapshot_after_train):
            places = self._nccl.gather(save_layers(self._solver.net))
            if places is not None:
                self._solver.know_places(places)


class AgreedAction:
    """One action for all solvers of a run: what rank 0 is asked, all hear after the same iteration.

    If rank 0 stopped by itself, the others would wait for its gradients for ever.

    Args:
        nccl: of this process.
        requested: what rank 0 is asked; other ranks' is not looked at.
    """

    def __init__(self, nccl: NCCL, requested: Callable[[], Action]) -> None:
        self._nccl = nccl
        self._requested = requested
        self._agreed = Action.NONE

    def on_start(self) -> None:
        """Before an iteration's forward: nothing to do."""

    def on_gradients_ready(self) -> None:
        """Hears rank 0."""
        asked = self._requested() if parallel.root_solver() else Action.NONE
        self._agreed = Action(self._nccl.broadcast_number(asked.value))

    @property
    def pending(self) -> Action:
        """What the solver will hear when it asks next."""
        return self._agreed

    def __call__(self) -> Action:
        """What to do now, once; a solver asks it."""
        agreed, self._agreed = self._agreed, Action.NONE
        return agreed
