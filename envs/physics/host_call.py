"""Call NumPy code on the host from a compiled JAX program that can be kept on disk.

`jax.pure_callback` does the same, but JAX never writes a program with such a callback into its
persistent compilation cache (`jax/_src/compiler.py`, `_cache_write`), so every start of a training
run compiled its largest programs again. XLA's foreign function interface is for code that is found
by name in the process, as LAPACK's is: programs that use it are cached like any other. Its binary
interface is in jaxlib's `xla/ffi/api/c_api.h` (version 0.3, kept compatible for 12 months), small
enough to be written down here with ctypes; nothing has to be compiled.

A compiled program knows a function by a number: a digest of what the function is, so that the same
program in another process means the same function.
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
_METADATA = 1
_INTERNAL = 13
# XLA_FFI_DataType: PRED, S32, U32, U64, F32.
_DTYPES = {1: np.bool_, 4: np.int32, 8: np.uint32, 9: np.uint64, 11: np.float32}
_functions: dict[int, Function] = {}


def register(function: Function, *identity: bytes) -> int:
    """Make `function` known, for as long as the process lives.

    Args:
        function: pure.
        identity: tells it from all others, in every process.

    Returns:
        the number under which `call` finds it.
    """
    digest = hashlib.sha256(b"|".join(identity)).digest()
    # MLIR's Python bindings take no integer beyond int64.
    number = int.from_bytes(digest[:8], "little") >> 1
    _functions.setdefault(number, function)
    return number


def call(
    number: int, results: Sequence[jax.ShapeDtypeStruct], *operands: jax.Array
) -> tuple[jax.Array, ...]:
    """Call the function `number`; under `jax.vmap` the whole batch is one call.

    On other devices than CPUs, whose memory the host cannot read, this is `jax.pure_callback`.

    Args:
        number: from `register`.
        results: what it returns, without batch axes. bool, int32, uint32, uint64 and float32.
        operands: without batch axes, of the same types.
    """
    results = tuple(results)

    def on_cpu(*operands: jax.Array) -> tuple[jax.Array, ...]:
        target = jax.ffi.ffi_call(_TARGET, results, vmap_method="broadcast_all")
        return tuple(target(*operands, function=np.uint64(number)))

    def elsewhere(*operands: jax.Array) -> tuple[jax.Array, ...]:
        function = _functions[number]
        return jax.pure_callback(function, results, *operands, vmap_method="broadcast_all")

    return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)


# The parts of c_api.h that a handler reads. Every structure begins with its size and extensions.


class _Extension(ctypes.Structure):
    pass


_Extension._fields_ = [
    ("struct_size", ctypes.c_size_t),
    ("type", ctypes.c_int),
    ("next", ctypes.POINTER(_Extension)),
]


class _Sized(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("extension", ctypes.POINTER(_Extension))]


class _Version(_Sized):
    _fields_ = [("major", ctypes.c_int), ("minor", ctypes.c_int)]


class _Metadata(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("version", _Version),
        ("traits", ctypes.c_uint32),
        ("state_type", ctypes.c_int64),
    ]


class _MetadataExtension(ctypes.Structure):
    _fields_ = [("base", _Extension), ("metadata", ctypes.POINTER(_Metadata))]


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
        ("attributes", ctypes.POINTER(ctypes.POINTER(_Scalar))),
    ]


class _ErrorArguments(_Sized):
    _fields_ = [("message", ctypes.c_char_p), ("code", ctypes.c_int)]


_CreateError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArguments))


class _Api(_Sized):
    _fields_ = [
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", _CreateError),
    ]


class _CallFrame(_Sized):
    _fields_ = [
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
        ("future", ctypes.c_void_p),
    ]


def _array(buffer: _Buffer) -> np.ndarray:
    """The buffer's own memory."""
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
    """XLA_FFI_Handler: asked once what it is, then called for each execution."""
    frame = pointer.contents
    if frame.extension and frame.extension.contents.type == _METADATA:
        extension = ctypes.cast(frame.extension, ctypes.POINTER(_MetadataExtension)).contents
        metadata = extension.metadata.contents
        metadata.version.struct_size = ctypes.sizeof(_Version)
        metadata.version.extension = None
        metadata.version.major, metadata.version.minor = _VERSION
        metadata.traits = 0
        metadata.state_type = 0
        return None
    try:
        number = frame.attributes.attributes[0].contents.value[0]
        found = _functions[number](*_arrays(frame.arguments))
        for place, value in zip(_arrays(frame.results), found, strict=True):
            place[...] = value
    except BaseException as error:
        message = f"{type(error).__name__}: {error}".encode()
        arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message, _INTERNAL)
        return frame.api.contents.create_error(ctypes.byref(arguments))
    return None


jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(_handler), platform="cpu")
