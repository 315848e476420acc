"""Call NumPy code on the host from a compiled JAX program that can be kept on disk.

`jax.pure_callback` does the same, but JAX never writes a program with such a callback into its
persistent compilation cache (`jax/_src/compiler.py`, `_cache_write`), so that every training run
would compile its largest programs again. XLA's foreign function interface (FFI) finds code by name
in the process, and programs that use it are cached like any other. Its binary interface is the
header `xla/ffi/api/c_api.h` of jaxlib; the parts needed are declared here with ctypes.
`tests/test_private_surfaces.py` compares them with the header that is installed.

A compiled program refers to a function by a digest of the function's identity, so that it calls
the same function in another process.
"""

import ctypes
import hashlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

Function = Callable[..., tuple[np.ndarray, ...]]
"""Arrays with the same leading batch axes -> arrays with those axes."""

_TARGET = "vnl_host_call"
_VERSION = (0, 3)
"""Version of the interface that is used here; later minor versions accept it."""
NEWEST_KNOWN = (0, 5)
"""Newest version whose header was compared with the structures below (jaxlib 0.12)."""
_METADATA = 1
_INTERNAL = 13
# XLA_FFI_DataType: PRED, S32, U32, U64, F32.
_DTYPES = {1: np.bool_, 4: np.int32, 8: np.uint32, 9: np.uint64, 11: np.float32}
_functions: dict[int, Function] = {}


def register(function: Function, *identity: bytes) -> int:
    """Register a function for `call`, until the process ends.

    Args:
        function: a pure function.
        identity: bytes that identify the function in every process.

    Returns:
        the number by which `call` finds it.
    """
    digest = hashlib.sha256(b"|".join(identity)).digest()
    # MLIR's Python bindings take no integer beyond int64.
    number = int.from_bytes(digest[:8], "little") >> 1
    _functions.setdefault(number, function)
    return number


def call(
    number: int, results: Sequence[jax.ShapeDtypeStruct], *operands: jax.Array
) -> tuple[jax.Array, ...]:
    """Call a registered function from traced code; under `jax.vmap` the whole batch is one call.

    On devices other than CPUs, whose memory the host cannot read, this is `jax.pure_callback`.

    Args:
        number: the function's number, from `register`.
        results: shapes and dtypes that it returns, without batch axes. Dtypes are bool, int32,
            uint32, uint64 or float32.
        operands: its arguments, without batch axes, of these dtypes too.

    Returns:
        the function's results. An exception in it becomes a `jax.errors.JaxRuntimeError`.
    """
    results = tuple(results)

    def on_cpu(*operands: jax.Array) -> tuple[jax.Array, ...]:
        target = jax.ffi.ffi_call(_TARGET, results, vmap_method="broadcast_all")
        return tuple(target(*operands, function=np.uint64(number)))

    def elsewhere(*operands: jax.Array) -> tuple[jax.Array, ...]:
        function = _functions[number]
        return jax.pure_callback(function, results, *operands, vmap_method="broadcast_all")

    return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)


# The parts of c_api.h that a handler reads, with the header's own names of fields. Every structure
# begins with its size and its extensions.


class _Extension(ctypes.Structure):
    pass


_Extension._fields_ = [
    ("struct_size", ctypes.c_size_t),
    ("type", ctypes.c_int),
    ("next", ctypes.POINTER(_Extension)),
]


class _Sized(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("extension_start", ctypes.POINTER(_Extension))]


class _Version(_Sized):
    _fields_ = [("major_version", ctypes.c_int), ("minor_version", ctypes.c_int)]


class _Metadata(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("api_version", _Version),
        ("traits", ctypes.c_uint32),
        ("state_type_id", ctypes.c_int64),
    ]


class _MetadataExtension(ctypes.Structure):
    _fields_ = [("extension_base", _Extension), ("metadata", ctypes.POINTER(_Metadata))]


class _Buffer(_Sized):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Buffers(_Sized):
    """XLA_FFI_Args and XLA_FFI_Rets, whose only kind of entry is the buffer."""

    _fields_ = [
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("buffers", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    ]


class _Scalar(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_int), ("value", ctypes.POINTER(ctypes.c_uint64))]


class _Attributes(_Sized):
    _fields_ = [
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("attrs", ctypes.POINTER(ctypes.POINTER(_Scalar))),
    ]


class _ErrorArguments(_Sized):
    _fields_ = [("message", ctypes.c_char_p), ("errc", ctypes.c_int)]


_CreateError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArguments))


class _Api(_Sized):
    _fields_ = [
        ("api_version", _Version),
        ("internal_api", ctypes.c_void_p),
        ("XLA_FFI_Error_Create", _CreateError),
    ]


class _CallFrame(_Sized):
    _fields_ = [
        ("api", ctypes.POINTER(_Api)),
        ("ctx", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("args", _Buffers),
        ("rets", _Buffers),
        ("attrs", _Attributes),
        ("future", ctypes.c_void_p),
    ]


def _array(buffer: _Buffer) -> np.ndarray:
    """Return a view of the buffer's memory."""
    dtype = np.dtype(_DTYPES[buffer.dtype])
    shape = tuple(buffer.dims[: buffer.rank])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size == 0:
        return np.zeros(shape, dtype)
    memory = (ctypes.c_char * size).from_address(buffer.data)
    return np.ndarray(shape, dtype, memoryview(memory))


def _arrays(buffers: _Buffers) -> list[np.ndarray]:
    return [_array(buffers.buffers[i].contents) for i in range(buffers.size)]


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_CallFrame))
def _handler(pointer):
    """Handle a call by XLA (XLA_FFI_Handler): first for metadata, then for each execution."""
    frame = pointer.contents
    if frame.extension_start and frame.extension_start.contents.type == _METADATA:
        extension = ctypes.cast(frame.extension_start, ctypes.POINTER(_MetadataExtension)).contents
        metadata = extension.metadata.contents
        version = metadata.api_version
        version.struct_size, version.extension_start = ctypes.sizeof(_Version), None
        version.major_version, version.minor_version = _VERSION
        metadata.traits = metadata.state_type_id = 0
        return None
    try:
        number = frame.attrs.attrs[0].contents.value[0]
        found = _functions[number](*_arrays(frame.args))
        for place, value in zip(_arrays(frame.rets), found, strict=True):
            place[...] = value
    except BaseException as error:
        message = f"{type(error).__name__}: {error}".encode()
        arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message, _INTERNAL)
        return frame.api.contents.XLA_FFI_Error_Create(ctypes.byref(arguments))
    return None


jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(_handler), platform="cpu")
