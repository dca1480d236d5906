"""The messages of caffe.proto as Python classes, in a descriptor pool of their own.

The committed caffe.binpb (a FileDescriptorSet, made by scripts/compile_proto) is turned into classes at import, because
code that protoc generates works only with the protobuf release it was generated for. The pool is not protobuf's default
one: the `caffe_pb2` of a fork, which registers the same names there, can be imported beside this module.

The classes say that they live in `caffe.proto.caffe_pb2`, where the original's did, and are pickled by that name.
Every top-level message, enum and enum value is a name of this module.
"""

from __future__ import annotations

import pathlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

PUBLIC_MODULE = "caffe.proto.caffe_pb2"


class EnumWrapper(enum_type_wrapper.EnumTypeWrapper):
    """What `Phase` and `V1LayerParameter.LayerType` are: as protobuf's wrapper, and it can be pickled and copied."""

    def __init__(self, descriptor: Any, qualified_name: str) -> None:
        super().__init__(descriptor)
        self.__module__ = PUBLIC_MODULE
        self.__qualname__ = qualified_name

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return find_enum, (self.__qualname__,)


def find_enum(qualified_name: str) -> Any:
    """The wrapper of an enum by its name within the package, such as 'Phase' or 'V1LayerParameter.LayerType'."""
    owner, _, name = qualified_name.rpartition(".")
    return getattr(MESSAGES[owner], name) if owner else ENUMS[name]


def _load_file(pool: Any) -> Any:
    # Not by importlib.resources, which `import caffe` would wait for.
    data = pathlib.Path(__file__).with_name("caffe.binpb").read_bytes()
    (file_proto,) = descriptor_pb2.FileDescriptorSet.FromString(data).file
    pool.AddSerializedFile(file_proto.SerializeToString())
    return pool.FindFileByName(file_proto.name)


def _message_class(descriptor: Any) -> Any:
    cls: Any = message_factory.GetMessageClass(descriptor)
    cls.__module__ = PUBLIC_MODULE
    for name, enum in descriptor.enum_types_by_name.items():
        setattr(cls, name, EnumWrapper(enum, f"{descriptor.name}.{name}"))
    return cls


POOL: Any = descriptor_pool.DescriptorPool()
DESCRIPTOR: Any = _load_file(POOL)
MESSAGES: dict[str, Any] = {name: _message_class(item) for name, item in DESCRIPTOR.message_types_by_name.items()}
ENUMS: dict[str, Any] = {name: EnumWrapper(item, name) for name, item in DESCRIPTOR.enum_types_by_name.items()}
VALUES: dict[str, int] = {
    value.name: value.number for enum in DESCRIPTOR.enum_types_by_name.values() for value in enum.values
}
EXPORTS: dict[str, Any] = {**MESSAGES, **ENUMS, **VALUES, "DESCRIPTOR": DESCRIPTOR}
globals().update(EXPORTS)


def __getattr__(name: str) -> Any:
    """Only for names that do not exist; it also tells type checkers that the names above do."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
