"""Private-key operations outside TLS, many at once on one thread: what a process needs that signs for others.

A :class:`Job` is one operation on a stack of its own. Here nothing pauses: operations go to their keys' engines, one fd
for all of them is readable when some have finished, and an engine that makes batches finds them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine_shim import linkage
from engine_shim.base import NativeEngine
from engine_shim.errors import EngineClosedError, KeyUseError, OperationCancelledError, OperationNotFinishedError
from engine_shim.key import PADDINGS, SALT_AS_DIGEST, UNSET
from engine_shim.native import check, ffi, lib, raise_status

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from engine_shim.key import Key

__all__ = ["DIGEST_SIZES", "Operation", "Operations"]

# In bytes. MD5-SHA1 is both, one after the other: what TLS before 1.2 signs with RSA (RFC 4346, 7.4.3), and then it has
# no DigestInfo in front.
DIGEST_SIZES = {"MD5-SHA1": 36, "SHA1": 20, "SHA224": 28, "SHA256": 32, "SHA384": 48, "SHA512": 64}

_NAMES = {name: ffi.new("char[]", name.encode()) for name in DIGEST_SIZES}
_RSA = ("RSA", "RSA-PSS")
_TAKEN_AT_ONCE = 256
_LONGEST_SALT = 2048  # bytes; no RSA modulus has room for more: OpenSSL's largest has 16,384 bits


class Operation:
    """One operation, made by :class:`Operations`; the same thread."""

    __slots__ = ("_handle", "_operations", "number", "token")

    def __init__(self, operations: Operations, number: int, token: object) -> None:
        self._operations = operations
        self._handle: Any = None
        self.number = number
        self.token = token

    def result(self) -> bytes:
        """Return the signature, or the raw decryption.

        Returns:
            A signature in the form that TLS uses (ECDSA: DER); a decryption as long as the modulus.

        Raises:
            EngineError: It was cancelled, it failed, or its engine was closed before.
            ForkedError: It is the parent's.
            OperationNotFinishedError: It has not finished.
        """
        if self._handle is None:
            message = "the operation was cancelled: submit another"
            raise OperationCancelledError(message)
        status = lib.operation_status(self._handle)
        if status == lib.SHIM_OK:
            size = lib.operation_output(self._handle, ffi.NULL, 0)
            out = ffi.new("unsigned char[]", size)
            lib.operation_output(self._handle, out, size)
            return bytes(ffi.buffer(out))
        if status != lib.SHIM_ERR_BUSY:
            reason = ffi.string(lib.operation_reason(self._handle)).decode(errors="replace")
            raise_status(status, "private-key operation", reason)
        self._operations.check()
        message = "the operation has not finished: wait until its Operations.fileno() is readable"
        raise OperationNotFinishedError(message)

    def cancel(self) -> None:
        """Give it up: it is not begun any more, or finishes for nobody. One that was taken keeps its result."""
        if self._operations.forget(self):
            handle, self._handle = self._handle, None
            ffi.release(handle)

    def __repr__(self) -> str:
        return f"<Operation {self.number}>"


class Operations:
    """Operations of any keys of the shim's engines, in any number. One thread: the one that made it.

    How many are in flight at a time is for the caller to bound. Where an engine has no threads (``needs_turns``), the
    caller calls its ``turn()``. A context manager: leaving closes it.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        OSError: No file descriptor is to be had.
    """

    def __init__(self) -> None:
        linkage.attach()
        handle = lib.operations_new()
        if handle == ffi.NULL:
            raise_status(lib.SHIM_ERR_SYSTEM, "making an fd for operations")
        self._handle = ffi.gc(handle, lib.operations_free)
        self._asked = ffi.new("struct operation *")
        self._out = ffi.new("struct op **")
        self._numbers = ffi.new("uint64_t[]", _TAKEN_AT_ONCE)
        self._pending: dict[int, Operation] = {}
        self._last = 0
        self._closed = False

    def __len__(self) -> int:
        """Count the operations that were submitted and neither taken nor cancelled."""
        return len(self._pending)

    def submit_signature(
        self,
        key: Key,
        digest_name: str,
        digest: bytes,
        *,
        padding: str | None = None,
        salt_length: int | None = None,
        token: object = None,
    ) -> Operation:
        """Sign a digest with an RSA or EC key.

        Args:
            key: Of one of the shim's engines.
            digest_name: ``SHA256``, ``SHA384``, ``SHA512``, ``SHA224``, ``SHA1``, or ``MD5-SHA1``.
            digest: The digest itself.
            padding: For RSA: ``pkcs1`` (the default; RFC 8017, 8.2) or ``pss`` (RFC 8017, 8.1), the only one that a key
                of type RSA-PSS has.
            salt_length: In bytes, for ``pss``; None: as long as the digest, as TLS has it.
            token: Anything; the operation keeps it.

        Returns:
            The operation; `take_finished` gives it back when it has finished.

        Raises:
            EngineClosedError: The engine is closed, or this is.
            ForkedError: This is the parent's.
            KeyUseError: The key cannot sign this.
            WrongThreadError: This is another thread's.
        """
        _check_digest(key, digest_name, digest)
        asked = self._asked
        asked.padding, asked.salt_length = _paddings(key, padding, salt_length)
        if digest_name == "MD5-SHA1" and (key.type == "EC" or asked.padding != PADDINGS["pkcs1"]):
            if key.type != "EC":
                message = "MD5-SHA1 is signed with padding pkcs1 only"
                raise KeyUseError(message)
            asked.digest = ffi.NULL  # ECDSA takes the leftmost bits of whatever it is; OpenSSL has no name for this one
        else:
            asked.digest = _NAMES[digest_name]
        return self._submit(key, lib.OPERATION_SIGN_DIGEST, digest, token)

    def submit_message(self, key: Key, message: bytes, *, token: object = None) -> Operation:
        """Sign a message with a key that takes it whole: Ed25519, Ed448 (RFC 8032), ML-DSA (FIPS 204).

        Args:
            key: Of one of the shim's engines.
            message: Of any length.
            token: Anything; the operation keeps it.

        Returns:
            The operation; `take_finished` gives it back when it has finished.

        Raises:
            EngineClosedError: The engine is closed, or this is.
            ForkedError: This is the parent's.
            KeyUseError: The key signs digests.
            WrongThreadError: This is another thread's.
        """
        if not _takes_messages(key):
            text = f"a key of type {key.type} signs a digest, not a message: hash it, and use submit_signature"
            raise KeyUseError(text)
        self._asked.digest = ffi.NULL
        self._asked.padding = self._asked.salt_length = UNSET
        return self._submit(key, lib.OPERATION_SIGN_MESSAGE, message, token)

    def submit_raw_decryption(self, key: Key, ciphertext: bytes, *, token: object = None) -> Operation:
        """Compute ``c ** d mod n`` (RSADP: RFC 8017, 5.1.2). Whoever may ask for it may sign and decrypt anything.

        Args:
            key: RSA, of one of the shim's engines.
            ciphertext: As long as the modulus.
            token: Anything; the operation keeps it.

        Returns:
            The operation, whose result is as long as the modulus and still padded; `take_finished` gives it back.

        Raises:
            EngineClosedError: The engine is closed, or this is.
            ForkedError: This is the parent's.
            KeyUseError: It is no RSA key, or the ciphertext has another length.
            WrongThreadError: This is another thread's.
        """
        if key.type != "RSA":
            text = f"a key of type {key.type} decrypts nothing: only RSA keys do"
            raise KeyUseError(text)
        size = int(lib.key_max_size(key.handle))
        if len(ciphertext) != size:
            text = f"the ciphertext has {len(ciphertext)} bytes, the key's modulus {size}: both must be equal"
            raise KeyUseError(text)
        self._asked.digest = ffi.NULL
        self._asked.padding = self._asked.salt_length = UNSET
        return self._submit(key, lib.OPERATION_DECRYPT_RAW, ciphertext, token)

    def _submit(self, key: Key, kind: int, data: bytes, token: object) -> Operation:
        if key.is_public:
            message = (
                f"the key's private half is in no engine of this process ({key.engine.name}): ask its signer itself"
            )
            raise KeyUseError(message)
        if not isinstance(key.engine, NativeEngine):
            message = (
                f"the key is in engine {key.engine.name}, a third party's: only keys of the shim's engines will do"
            )
            raise KeyUseError(message)
        self._check_open()
        asked, number = self._asked, self._last + 1
        asked.kind, asked.number = kind, number
        source = ffi.from_buffer(data)
        asked.input, asked.length = source, len(source)
        check(lib.operations_submit(self._handle, key.handle, asked, self._out), "submitting an operation")
        operation = Operation(self, number, token)
        operation._handle = ffi.gc(self._out[0], lib.operation_free)  # noqa: SLF001 - both are ours
        self._last = number
        self._pending[number] = operation
        return operation

    def fileno(self) -> int:
        """Return the fd that is readable while operations have finished and are not taken; perhaps for nothing.

        Raises:
            EngineClosedError: This is closed.
            ForkedError: This is the parent's.
            WrongThreadError: This is another thread's.
        """
        self._check_open()
        self.check()
        return int(lib.operations_fd(self._handle))

    def take_finished(self) -> list[Operation]:
        """Take the operations that have finished, in the order in which they did; none that was cancelled.

        Returns:
            At most 256; where there are more, the fd stays readable.

        Raises:
            ForkedError: This is the parent's.
            WrongThreadError: This is another thread's.
        """
        self.check()
        count = lib.operations_take(self._handle, self._numbers, _TAKEN_AT_ONCE)
        found = [self._pending.pop(number, None) for number in self._numbers[0:count]]
        return [operation for operation in found if operation is not None]

    def forget(self, operation: Operation) -> bool:
        """Return whether the operation was still pending, which it is no more: :meth:`Operation.cancel` calls this.

        Raises:
            ForkedError: This is the parent's.
            WrongThreadError: This is another thread's.
        """
        self.check()
        return self._pending.pop(operation.number, None) is not None

    def check(self) -> None:
        """Raise ForkedError in a child of the process that made this, and WrongThreadError on another thread."""
        check(lib.operations_check(self._handle), "operations")

    def _check_open(self) -> None:
        if self._closed:
            message = "these Operations are closed: make others"
            raise EngineClosedError(message)

    def close(self) -> None:
        """Cancel what is pending, once; nothing is submitted or taken after it.

        Raises:
            ForkedError: This is the parent's.
            WrongThreadError: This is another thread's.
        """
        self.check()
        for operation in tuple(self._pending.values()):
            operation.cancel()
        lib.operations_close(self._handle)
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _takes_messages(key: Key) -> bool:
    return key.type.startswith(("ED", "ML-DSA"))


def _check_digest(key: Key, name: str, digest: bytes) -> None:
    if _takes_messages(key):
        message = f"a key of type {key.type} signs messages, not digests: use submit_message"
        raise KeyUseError(message)
    size = DIGEST_SIZES.get(name)
    if size is None:
        message = f"digest is {name!r}, it must be one of {', '.join(DIGEST_SIZES)}"
        raise KeyUseError(message)
    if len(digest) != size:
        message = f"the digest has {len(digest)} bytes, {name} has {size}"
        raise KeyUseError(message)


def _paddings(key: Key, padding: str | None, salt_length: int | None) -> tuple[int, int]:
    """Return what C calls the padding and the salt's length."""
    if key.type not in _RSA:
        if padding is not None or salt_length is not None:
            message = f"a signature of type {key.type} has no padding and no salt: leave them out"
            raise KeyUseError(message)
        return UNSET, UNSET
    padding = padding or ("pss" if key.type == "RSA-PSS" else "pkcs1")
    if padding not in PADDINGS:
        message = f"padding is {padding!r}, it must be one of {', '.join(PADDINGS)}"
        raise KeyUseError(message)
    if padding != "pss":
        if salt_length is not None:
            message = f"padding {padding} has no salt: leave its length out"
            raise KeyUseError(message)
        return PADDINGS[padding], UNSET
    if salt_length is not None and not 0 <= salt_length <= _LONGEST_SALT:
        message = f"salt_length is {salt_length}, it must be between 0 and {_LONGEST_SALT}"
        raise KeyUseError(message)
    return PADDINGS[padding], SALT_AS_DIGEST if salt_length is None else salt_length
