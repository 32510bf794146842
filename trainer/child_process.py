"""What every process that a node starts by multiprocessing does first: it leaves its end to the one that started it."""

import multiprocessing
import os
import signal
import threading


def live_as_child() -> None:
    """The parent process decides when this one ends.

    Ctrl-C reaches the whole process group; here it is ignored, so that requests in flight can finish. When the parent
    is gone, however it ended, this process ends too: nobody else would end it. A process without a parent of that kind
    is left alone.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="coloq-parent-watch", daemon=True).start()
