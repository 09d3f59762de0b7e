"""A worker process: it reads the next case, predicts the present one and writes the last one at the same time.

Every case passes three threads. What goes wrong with it in one of them is told to the parent as its own
failure, and the other cases go on. The parent hands out no more than is wanted ahead, so the queues are short.

What a worker sends, each a tuple:
    ("ready", gpus, by_pytorch)      how many GPUs there are for workers, 0: it computes on the CPU; by what engine
    ("begun", name)                  the case is being read
    ("computed", name)               the network is free for another
    ("done", name, row, memory)      it is written; memory in bytes that is this worker's own: most, now
    ("failed", name, failure)        a `records.Failure`
    ("broken", error)                the command cannot go on: the disk is full, the weights are damaged
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue, SimpleQueue
from typing import Any

import torch

from megavox.cohort.case import Case
from megavox.core.errors import ImageError, MegavoxError
from megavox.core.exhausted import enough_memory, out_of_memory
from megavox.core.processes import begin_in_loader
from megavox.core.provenance import cores
from megavox.inference.case import Opened, failure_of, open_case, write_case
from megavox.inference.engines import OpenVINOEngine
from megavox.inference.predictor import Prediction, Predictor
from megavox.inference.recipe import Network
from megavox.memory.available import forget_most, private_bytes
from megavox.training.parallel import choose_device


def work(connection: Connection, network: Network, folder: Path, number: int, threads: int) -> None:
    """Predict the cases that come through the connection; ends with the parent.

    Args:
        network: what to predict with.
        folder: where predictions go.
        number: of this worker, which picks its GPU.
        threads: to compute with.
    """
    begin_in_loader(0)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries that are loaded later
    torch.set_num_threads(threads)
    try:
        device, gpus = choose_device(network.device), 0
        if device.type == "cuda":
            gpus = torch.cuda.device_count()
            device = torch.device("cuda", number % gpus)
            torch.cuda.set_device(device)
            torch.set_num_threads(max(threads, cores() // gpus))
        recipe = network.recipe  # in a faster setting that agreed, its precision is settled
        with enough_memory("loading the network", "Give the command more memory, or fewer --workers"):
            predictor = Predictor(recipe if recipe.study.inference.fast else recipe.on(device.type),
                                  network.checkpoint, device)
    except Exception as error:
        connection.send(("broken", _told(error)))
        return
    forget_most()  # a network that was converted just now took more than predicting does
    _Line(connection, predictor, network, folder).run(gpus)


class _Line:
    def __init__(self, connection: Connection, predictor: Predictor, network: Network, folder: Path) -> None:
        self._connection, self._sending = connection, threading.Lock()
        self._predictor, self._network, self._folder = predictor, network, folder
        self._opened: SimpleQueue[Opened] = SimpleQueue()
        self._predicted: Queue[tuple[Opened, Prediction]] = Queue(1)

    def run(self, gpus: int) -> None:
        self._send("ready", gpus, not isinstance(self._predictor.engine, OpenVINOEngine))
        for thread in (self._read, self._write):
            threading.Thread(target=_or_die, args=(thread,), daemon=True).start()
        while True:
            opened = self._opened.get()
            clock = time.perf_counter()
            try:
                prediction = self._predictor.predict(opened.image)
            except Exception as error:
                self._failed(opened.case, error)
                continue
            opened.seconds["predict"] = round(time.perf_counter() - clock, 4)
            opened.image = None  # type: ignore[assignment]  # its memory is wanted
            self._predicted.put((opened, prediction))
            self._send("computed", opened.case.name)
            del opened, prediction

    def _read(self) -> None:
        while True:
            try:
                case: Case = self._connection.recv()
            except (EOFError, OSError):  # nobody wants more, or the parent has ended
                os._exit(1)
            self._send("begun", case.name)
            try:
                found = open_case(case, self._folder, self._network.weights, self._network.recipe.preparation.grey)
            except Exception as error:
                self._failed(case, error)
                continue
            if isinstance(found, Opened):
                self._opened.put(found)
            else:
                self._send("done", case.name, found, None)
            del found

    def _write(self) -> None:
        while True:
            opened, prediction = self._predicted.get()
            try:
                row = write_case(opened, prediction, self._folder, self._network.weights, self._predictor.recipe)
            except Exception as error:
                self._failed(opened.case, error)
            else:
                self._send("done", opened.case.name, row, self._memory(opened, prediction))
            del opened, prediction

    def _memory(self, opened: Opened, prediction: Prediction) -> tuple[int, int]:
        """This worker's own memory, most and now; with one more image and two more masks, which lie beside."""
        most, now = private_bytes()
        masks = 0 if prediction.labels is None else 2 * prediction.labels.nbytes
        return most + opened.bytes + masks, now

    def _failed(self, case: Case, error: Exception) -> None:
        if isinstance(error, MegavoxError) and not isinstance(error, ImageError) and not out_of_memory(error):
            self._send("broken", _told(error))
        else:
            self._send("failed", case.name, failure_of(error, case))

    def _send(self, *message: Any) -> None:
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:  # the parent has ended
                os._exit(1)


def _or_die(work: Callable[[], None]) -> None:
    """A thread that ends by an error of our own ends the worker: the parent would wait for its cases for ever."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _told(error: Exception) -> Exception:
    """The error as it can be sent: one for people as it is, any other with its traceback as text."""
    if isinstance(error, MegavoxError):
        return error
    return RuntimeError("a worker could not start:\n" + "".join(traceback.format_exception(error)))
