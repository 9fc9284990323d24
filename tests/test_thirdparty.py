from __future__ import annotations

from engine_shim.thirdparty import ThirdPartyEngine


class Nothing(ThirdPartyEngine):
    name = "nothing"

    def load_key(self, source: object, password: object = None) -> object:  # type: ignore[override]
        raise NotImplementedError

    def close(self, timeout: float = 5.0) -> bool:  # noqa: ARG002 - the interface
        self._closed = True
        return True


def test_what_openssl_does_not_tell_is_zero() -> None:
    numbers = Nothing().statistics()
    assert {getattr(numbers, name) for name in numbers.__dataclass_fields__} == {0}


def test_leaving_the_block_closes() -> None:
    with Nothing() as engine:
        assert not engine.closed
    assert engine.closed
    assert engine.can_block
