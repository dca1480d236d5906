"""The nets of a solver: one to train and any number to test (solver.cpp, InitTrainNet and InitTestNets).

A net is given by a file (`net`, `train_net`, `test_net`) or inside of the solver (`net_param` and so on). `net` serves
both phases. Its state starts as the phase; the net's own state is merged into that, then the solver's `train_state` or
`test_state`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycaffe.errors import SolverError
from pycaffe.net import TEST, TRAIN, Net
from pycaffe.proto.filter import filter_net
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.prototxt import load_net
from pycaffe.proto.schema import NetState
from pycaffe.proto.upgrade import upgrade_net_as_needed
from pycaffe.solvers.progress import log_progress

__all__ = ["make_test_nets", "make_train_net", "net_sources"]

TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


def make_train_net(param: Any) -> Net:
    """The net that the solver trains, with its `weights`.

    Raises:
        SolverError: no net is given, or more than one.
        ProtoError, NetError, WeightsError: as `Net`.
    """
    name, value = _train_net(param)
    source = f"from {name} file: {value}" if isinstance(value, str) else f"specified in {name}."
    log_progress("solver.cpp:102", "Creating training net %s", source)
    return _make_net(_source(value, TRAIN, [param.train_state]), param.weights)


def net_sources(param: Any) -> list[NetSource]:
    """What `make_train_net` and `make_test_nets` make nets of: each with the layers of its state alone.

    Raises:
        SolverError, ProtoError, NetError: as they do.
    """
    sources = [_source(_train_net(param)[1], TRAIN, [param.train_state])]
    sources += [_source(value, TEST, states) for _, value, states in _test_nets(param)]
    return [filter_net(source) for source in sources]


def _train_net(param: Any) -> tuple[str, Any]:
    """The field that gives the net, and its value."""
    given = [name for name in TRAIN_FIELDS if param.HasField(name)]
    fields = ", ".join(TRAIN_FIELDS)
    if not given:
        raise SolverError(f"SolverParameter must specify a train net using one of these fields: {fields}")
    if len(given) > 1:
        raise SolverError(
            f"SolverParameter must not contain more than one of these fields specifying a train_net: {fields}. "
            f"Got {', '.join(given)}."
        )
    return given[0], getattr(param, given[0])


def make_test_nets(param: Any) -> list[Net]:
    """The nets that the solver tests: those of test_net_param, of test_net, and the common one as often as test_iter
    has more values.

    Raises:
        SolverError: test_iter, test_state or test_interval do not fit the test nets.
    """
    nets = []
    for index, (name, value, states) in enumerate(_test_nets(param)):
        source = f"{name} file: {value}" if isinstance(value, str) else name
        log_progress("solver.cpp:190", "Creating test net (#%d) specified by %s", index, source)
        nets.append(_make_net(_source(value, TEST, states), param.weights))
        nets[-1].debug_info = param.debug_info
    return nets


def _test_nets(param: Any) -> list[tuple[str, Any, Sequence[Any]]]:
    """Of each: the field that gives it, its value, and its state where the solver gives one."""
    values = [(name, value) for name in ("test_net_param", "test_net") for value in getattr(param, name)]
    common = [(name, getattr(param, name)) for name in ("net_param", "net") if param.HasField(name)]
    count = len(param.test_iter)
    if count < len(values) or (not common and count != len(values)):
        raise SolverError(
            f"test_iter must be specified for each test network. Got {count} test_iter for {len(values)} test nets."
        )
    values += common * (count - len(values))
    states = list(param.test_state)
    if states and len(states) != len(values):
        raise SolverError(
            "test_state must be unspecified or specified once per test net. "
            f"Got {len(states)} test_state for {len(values)} test nets."
        )
    if values and param.test_interval <= 0:
        raise SolverError(
            f"Check failed: test_interval > 0 ({param.test_interval} vs. 0). Set test_interval, or remove test_iter."
        )
    return [(name, value, states[index : index + 1]) for index, (name, value) in enumerate(values)]


def _source(value: Any, phase: int, states: Sequence[Any]) -> NetSource:
    """A net by its file's path, or as a message; in its state."""
    source = load_net(value) if isinstance(value, str) else _upgraded(value)
    state = NetState(phase=phase)
    state.MergeFrom(source.param.state)
    for merged in states:
        state.MergeFrom(merged)
    source.param.state.CopyFrom(state)
    return source


def _upgraded(net: Any) -> NetSource:
    source = NetSource(type(net)())
    source.param.CopyFrom(net)
    upgrade_net_as_needed(source)
    return source


def _make_net(source: NetSource, weights: Sequence[str]) -> Net:
    state = source.param.state
    net = Net(source, state.phase, state.level)
    for names in weights:
        for name in names.split(","):
            log_progress("solver.cpp:72", "Finetuning from %s", name.strip())
            net.copy_from(name.strip())
    return net
