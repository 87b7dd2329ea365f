"""The guards of tests/conftest.py."""

import os
import socket

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.invalid", 80)])
def test_no_way_out(address: tuple[str, int]) -> None:
    with socket.socket() as outside:
        for connect in (outside.connect, outside.connect_ex):
            with pytest.raises(RuntimeError, match="may not leave this machine"):
                connect(address)


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_nothing_personal() -> None:
    names = {name for name in os.environ if name.startswith(("AWS_", "HF_", "SFTJOB_"))}

    assert names == {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"}
