"""A port that is taken is named together with who holds it."""

import os
import socket

import pytest

from pipeline.local.ports import PortTaken, claim, free_port


def test_who_holds_a_taken_port_is_named() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken) as caught:
            claim(port, "The gateway", "--port")
    assert f"port {port}, which process {os.getpid()} (" in str(caught.value)
    assert "set --port to another port" in str(caught.value)


def test_a_free_port_is_given_as_it_is() -> None:
    port = free_port()
    assert claim(port, "The gateway", "--port") == port
    assert claim(0, "The gateway", "--port") > 0


def test_no_port_is_given_twice_and_none_that_outgoing_connections_take() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert all(20_000 <= port < 32_000 for port in ports)
