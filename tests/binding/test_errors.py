"""What goes wrong in Rust arrives as the exception that `overlaynet.errors` has for it, with its data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from overlaynet import _core
from overlaynet.errors import DecodeError, OverlaynetError
from overlaynet.packet import Ipv4, Ipv6, Tcp, Tunnel, Udp, Vlan, Vxlan, decode, encode


def test_missing_bytes_are_a_decode_error_with_its_numbers() -> None:
    with pytest.raises(DecodeError) as caught:
        _core.decode(bytes(13))
    error = caught.value
    assert (error.layer, error.offset, error.need, error.have, error.why) == ("ethernet", 0, 14, 13, "truncated")
    assert str(error) == "ethernet at byte 0: truncated: need 14, have 13"
    assert isinstance(error, OverlaynetError)
    assert isinstance(error, ValueError)


def test_a_fault_inside_is_told_from_the_start_of_the_buffer() -> None:
    with pytest.raises(DecodeError) as caught:
        _core.decode(bytes(12) + b"\x08\x00" + b"\x75" + bytes(19))
    error = caught.value
    assert (error.layer, error.offset, error.need, error.have, error.why) == ("ipv4", 14, 4, 7, "wrong version")


@pytest.mark.parametrize("wrong", [None, 8, "text", [1, 2], object()])
def test_what_is_no_buffer_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError):
        _core.decode(wrong)  # type: ignore[arg-type]  # the wrong type is what is tested
    with pytest.raises(TypeError):
        _core.decode_many([b"", wrong])  # type: ignore[list-item]  # as above


def test_an_unknown_first_layer_is_named() -> None:
    with pytest.raises(ValueError, match='first "gre": want ethernet'):
        _core.decode(b"", "gre")  # type: ignore[arg-type]  # the wrong name is what is tested


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: Vxlan(1 << 24), "Vxlan.vni 16777216: at most 16777215"),
        (lambda: Vxlan(1, dont_learn=True), "Vxlan.dont_learn, Vxlan.policy_applied: only with a group"),
        (lambda: Vlan(4096), "Vlan.vid 4096: at most 4095"),
        (lambda: Vlan(1, 8), "Vlan.priority 8: at most 7"),
        (lambda: Ipv6("::", "::", flow_label=1 << 20), "Ipv6.flow_label 1048576: at most 1048575"),
        (lambda: Ipv4("0.0.0.0", "0.0.0.0", fragment_offset=0x2000), "Ipv4.fragment_offset 8192: at most 8191"),
        (lambda: Ipv4("0.0.0.0", "0.0.0.0", options=b"abc"), "Ipv4.options: 3 bytes: want a multiple of 4"),
        (lambda: Ipv4("0.0.0.0", "::"), "not an IPv4 address"),
        (lambda: Tcp(1, 2, options=bytes(44)), "Tcp.options: 44 bytes: want a multiple of 4, at most 40"),
        (lambda: encode(Udp(1, 2)), "udp: the checksum needs an IP header around it"),
        (lambda: Tunnel(Udp(1, 2)), "udp: the checksum needs an IP header around it"),
    ],
)
def test_what_cannot_be_encoded_is_a_value_error(layer: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        layer()


def test_what_is_no_layer_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="str is no layer"):
        encode("gre")  # type: ignore[arg-type]  # the wrong type is what is tested
    with pytest.raises(TypeError, match="int is no kind of layer"):
        decode(bytes(14)).innermost(int)  # type: ignore[type-var]  # and here


def test_a_number_that_does_not_fit_is_an_overflow_error() -> None:
    with pytest.raises(OverflowError):
        Udp(65536, 1)


def test_too_long_a_packet_is_a_value_error() -> None:
    layer = Ipv4("10.0.0.1", "10.0.0.2", 17)
    assert len(encode(layer, payload=bytes(65515))) == 65535
    assert len(Tunnel(layer).wrap(bytes(65515))) == 65535
    for write in (encode, lambda layer, payload: Tunnel(layer).wrap(payload)):
        with pytest.raises(ValueError, match="ipv4: length 65536"):
            write(layer, payload=bytes(65516))
