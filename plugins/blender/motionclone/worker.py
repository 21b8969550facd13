"""A thread that does one piece of work after another."""

import queue
import threading
from concurrent.futures import Future


class Worker:
    """A daemon thread: where its work does not end in time, neither Python nor Blender waits for it at exit, as they
    would for the threads of `concurrent.futures`."""

    def __init__(self, name):
        self._queue, self._closed = queue.SimpleQueue(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function, *arguments):
        """Queues a call; gives its future."""
        future = Future()
        self._queue.put((future, function, arguments))
        return future

    def close(self, last, limit):
        """Drops what waits, has the thread call `last` once it is free, and end. Waits up to `limit` seconds for that;
        says whether it has ended."""
        if not self._closed:
            self._closed = True
            self._drop()
            self.submit(last)
            self._queue.put(None)
        self._thread.join(limit)
        return not self._thread.is_alive()

    def _drop(self):
        try:
            while True:
                self._queue.get_nowait()[0].cancel()
        except queue.Empty:
            pass

    def _run(self):
        while (item := self._queue.get()) is not None:
            future, function, arguments = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)
