"""Word from the learner's thread to the front process that an answer is there: a ticket in a datagram.

    learner's thread ──ticket──► front process ──coloq_poll(ticket)──► the answer

Asking the engine again and again would hold its loop up each time, and most often in vain. A word that is lost costs
time and nothing else: who waits asks by himself after a while.
"""

import socket
from contextlib import suppress

ADDRESS = "COLOQ_ANSWER_LINE"
"""Environment variable of the engine process: the path of the front process's datagram socket."""
TICKET_BYTES = 8


class AnswerCaller:
    """The engine process's end. Any thread may tell."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def tell(self, ticket: int) -> None:
        """Say that this ticket's answer is there; at once, whether or not anybody hears it."""
        with suppress(OSError):
            self._socket.sendto(ticket.to_bytes(TICKET_BYTES), self._address)

    def close(self) -> None:
        """Tell no more."""
        self._socket.close()
