"""Our errors as `cv2.error`, so that scripts which catch OpenCV's go on working."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from pycaffe.errors import CaffeError

__all__ = ["as_opencv_error", "raises_opencv_errors", "raising_opencv_errors"]

Class = TypeVar("Class", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])
STS_ERROR = -2  # cv::Error::StsError, "Unspecified error"
_kinds: dict[type[CaffeError], type[CaffeError]] = {}


def as_opencv_error(error: CaffeError) -> CaffeError:
    """The same error as one that is a `cv2.error`, too, with the attributes of one; unchanged without OpenCV."""
    kind = _with_opencv(type(error))
    if kind is type(error):
        return error
    converted = kind(*error.args)
    vars(converted).update(vars(error), code=STS_ERROR, err=str(error), msg=str(error), file="", func="", line=0)
    return converted


def _with_opencv(kind: type[CaffeError]) -> type[CaffeError]:
    try:
        import cv2
    except ImportError:
        return kind
    if issubclass(kind, cv2.error):
        return kind
    if kind not in _kinds:
        names = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": _reduce}
        _kinds[kind] = type(kind.__name__, (kind, cv2.error), names)
    return _kinds[kind]


def _reduce(error: CaffeError) -> tuple[Any, ...]:
    """Pickles by the plain class, since the one made here has no name that could be imported."""
    return _restore, (type(error).__mro__[1], error.args)


def _restore(kind: type[CaffeError], args: tuple[Any, ...]) -> CaffeError:
    return as_opencv_error(kind(*args))


def raising_opencv_errors(function: Function) -> Function:
    """A function whose CaffeErrors come out as `cv2.error`."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except CaffeError as error:
            converted = as_opencv_error(error)
            if converted is error:
                raise
            raise converted from error

    return call  # type: ignore[return-value]


def raises_opencv_errors(cls: Class) -> Class:
    """A class whose public methods do so, and its constructor."""
    for name, value in list(vars(cls).items()):
        if callable(value) and not isinstance(value, type) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, raising_opencv_errors(value))
    return cls
