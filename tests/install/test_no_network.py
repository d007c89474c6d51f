"""The witness of the other tests of this folder sees what it is there for."""

import sys
from pathlib import Path

from install_tools import run
from no_network import environment

CODE = """
import sys
sys.audit("socket.connect", None, ("127.0.0.1", 80))
sys.audit("socket.connect", None, "/run/a.socket")
sys.audit("socket.connect", None, ("192.0.2.7", 443))
sys.audit("socket.getaddrinfo", "localhost", 80, 0, 0, 0)
sys.audit("socket.getaddrinfo", "models.example", 443, 0, 0, 0)
"""


def test_connections_to_other_machines_are_noted(tmp_path: Path) -> None:
    variables, noted = environment(tmp_path)
    run(sys.executable, "-c", CODE, **variables)
    assert noted.read_text() == "192.0.2.7\nmodels.example\n"
