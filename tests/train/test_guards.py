import os
import pathlib
import signal
import socket
import sys
import time

import pytest

from t5x_like.train import disk, distributed, guards, watchdog
from t5x_like.train.run_lock import NAME, RunLock, lock_owner, this_process
from tests.train.launch_processes import outcome, running, wait_for_line, wait_until

# ---- Numbers that are not finite.


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step():
    guards.require_finite(6, {"loss": 1.5, "grad_norm": 0.0})
    with pytest.raises(FloatingPointError, match=r"step 7: loss is nan, grad_norm is inf; stopped before"):
        guards.require_finite(7, {"loss": float("nan"), "grad_norm": float("inf"), "accuracy": 0.5})


# ---- One writer per folder.

HOLD = """
import sys, time
from t5x_like.train.run_lock import RunLock
RunLock(sys.argv[1])
print("held", flush=True)
time.sleep(100)
"""


def test_a_second_run_is_refused_with_the_name_of_the_first(tmp_path):
    with running(HOLD, tmp_path) as (first,):
        wait_for_line(first, "held")
        with pytest.raises(RuntimeError) as error:
            RunLock(tmp_path)
        assert f"is in use by process {first.pid} on " in str(error.value) and "\n" not in str(error.value)
        assert f"process {first.pid}" in lock_owner(tmp_path)
        first.send_signal(signal.SIGKILL)
        wait_until(lambda: first.poll() is not None)
        lock = RunLock(tmp_path)  # nobody holds it any more
        assert lock.notes and "that process has ended" in lock.notes[0]
        lock.release()
    assert lock_owner(tmp_path) is None and os.listdir(tmp_path) == []


def test_a_process_that_got_the_number_of_a_dead_owner_does_not_keep_the_folder(tmp_path):
    lock = RunLock(tmp_path)
    owner = (tmp_path / NAME).read_text()
    lock.release()
    (tmp_path / NAME).write_text(owner.replace(this_process()["started"], "1"))
    RunLock(tmp_path).release()


def test_an_owner_on_another_machine_is_alive_as_long_as_it_touches_the_lock(tmp_path):
    lock = RunLock(tmp_path)
    owner = (tmp_path / NAME).read_text()
    lock.release()
    (tmp_path / NAME).write_text(owner.replace(this_process()["machine"], "elsewhere"))
    with pytest.raises(RuntimeError, match="is in use by process"):
        RunLock(tmp_path)
    an_hour_ago = time.time() - 3600
    os.utime(tmp_path / NAME, (an_hour_ago, an_hour_ago))
    lock = RunLock(tmp_path)
    assert "no sign of life for" in lock.notes[0]
    lock.release()


def test_a_lock_that_was_torn_by_a_crash_is_waited_for_and_then_taken(tmp_path):
    (tmp_path / NAME).write_text('{"host": "a')
    with pytest.raises(RuntimeError, match="a run that is just starting"):
        RunLock(tmp_path)
    os.utime(tmp_path / NAME, (0, 0))
    RunLock(tmp_path).release()


def test_a_run_that_lost_its_folder_stops_and_leaves_the_lock_to_the_other(tmp_path):
    first = RunLock(tmp_path, beat_seconds=0.05)
    first.check()
    with running(HOLD.replace("1])", "1], take_over=True)").replace("100", "0"), tmp_path) as (second,):
        assert outcome(second)[0] == 0

    def lost():
        try:
            first.check()
        except RuntimeError as error:
            return f"taken over by process {second.pid}" in str(error)

    wait_until(lost)
    first.release()
    assert (tmp_path / NAME).exists()


def test_a_living_owner_keeps_its_lock_young(tmp_path):
    lock = RunLock(tmp_path, beat_seconds=0.05)
    os.utime(tmp_path / NAME, (0, 0))
    wait_until(lambda: (tmp_path / NAME).stat().st_mtime > 1e9)
    lock.release()


# ---- Disks.


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    disk.probe_writable(tmp_path / "new" / "run")
    assert os.listdir(tmp_path / "new" / "run") == []
    disk.require_free(tmp_path, 1)


AS_NOBODY = """
import os, pathlib, sys
from t5x_like.train import disk
if os.getuid() == 0:
    os.setuid(65534)
disk.probe_writable(pathlib.Path(sys.argv[1]))
"""


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to .*file/run: Not a directory; choose another folder"):
        disk.probe_writable(tmp_path / "file" / "run")
    with running(AS_NOBODY, "/proc/self" if sys.platform.startswith("linux") else "/") as (process,):
        code, _, errors = outcome(process)
        assert code == 1 and "cannot write to" in errors


def test_a_disk_without_room_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(OSError, match=r"GB free and 1000000000.00 GB are needed; delete something"):
        disk.require_free(tmp_path, 10**18)


# ---- Signals.

STEPS = """
import sys, time
from t5x_like.train import guards, preemption
stop = preemption.StopSignals(num_processes=1)
for step in range(1, 10**6):
    print("step", step, flush=True)
    time.sleep(0.02)
    if stop.reached(step):
        break
stop.close()
print(preemption.resume_line(step), flush=True)
guards.leave(guards.DONE, num_processes=1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_the_run_save_and_exit_cleanly(number):
    with running(STEPS) as (process,):
        wait_for_line(process, "step 3")
        process.send_signal(number)
        code, output, errors = outcome(process)
    assert code == 0
    assert f"{number.name}: finishing this step" in errors
    last_step = ["step 3", *output.splitlines()][-2].removeprefix("step ")
    assert f"saved step {last_step}; run the same command to resume" in output


BUSY = """
import ctypes
from t5x_like.train import preemption
stop = preemption.StopSignals(num_processes=1)
print("busy", flush=True)
while True:
    ctypes.CDLL(None).pause()  # like a compiler: no Python code runs in this thread
"""


def test_a_second_signal_ends_the_process_even_inside_a_long_compilation():
    with running(BUSY) as (process,):
        wait_for_line(process, "busy")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        code, _, errors = outcome(process, seconds=10)
    assert code == 128 + signal.SIGTERM
    assert "exiting now" in errors


JOIN = """
import sys, time
import jax
from t5x_like.train import distributed, guards, preemption
coordinator, process = sys.argv[-2], int(sys.argv[-1])
distributed.start_distributed(coordinator=coordinator, num_processes=2, process_id=process, heartbeat_seconds=10)
guards.leave_on_uncaught_exception(num_processes=2)
"""

TWO_STOP = (
    JOIN
    + """
distributed.require_agreement("the configuration", "the same")
try:
    distributed.require_agreement("the configuration", f"of process {process}")
except ValueError as error:
    print("refused:", error, flush=True)
stop = preemption.StopSignals(num_processes=2)
for step in range(1, 10**6):
    print("step", step, flush=True)
    time.sleep(0.02)
    if stop.reached(step):
        break
stop.close()
print("stopped at", step, flush=True)
guards.leave(guards.DONE, num_processes=2)
"""
)


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step():
    with running(TWO_STOP, num_processes=2) as processes:
        wait_for_line(processes[1], "refused: the configuration of process [1] differs from that of process 0")
        wait_for_line(processes[1], "step 5")
        processes[1].send_signal(signal.SIGINT)  # which is handed on as SIGTERM, so this covers both
        (code_0, output_0, errors_0), (code_1, output_1, _) = map(outcome, processes)
    assert (code_0, code_1) == (0, 0), errors_0
    assert output_0.splitlines()[-1].startswith("stopped at")
    assert output_0.splitlines()[-1] == output_1.splitlines()[-1]


# ---- Peers.

TWO_FAIL = (
    JOIN
    + """
jax.experimental.multihost_utils.sync_global_devices("started")
print("started", flush=True)
if process == 1:
    raise ArithmeticError("a bad batch on process 1")
jax.experimental.multihost_utils.sync_global_devices("never")
"""
)


def test_an_exception_in_one_of_two_processes_ends_both_within_the_heartbeat_time():
    with running(TWO_FAIL, num_processes=2) as processes:
        for process in processes:
            wait_for_line(process, "started")
        code, _, errors = outcome(processes[1], seconds=10)
        assert code == 1 and "ArithmeticError: a bad batch on process 1" in errors
        assert outcome(processes[0], seconds=40)[0] != 0


def test_a_coordinator_that_never_comes_or_has_no_port_is_one_sentence():
    with socket.create_server(("", 0)) as taken:
        coordinator = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=r"Address already in use; choose another port"):
            distributed.start_distributed(coordinator=coordinator, num_processes=2, process_id=0)
    with pytest.raises(RuntimeError, match=rf"process 0 does not answer at {coordinator} after 1 s"):
        distributed.start_distributed(coordinator=coordinator, num_processes=2, process_id=1, start_seconds=1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"coordinator": "h:1", "num_processes": 2}, "['process_id'] is absent"),
        ({"coordinator": "h", "num_processes": 2, "process_id": 0}, "coordinator 'h' must be host:port"),
        ({"coordinator": "h:1", "num_processes": 2, "process_id": 2}, "process_id 2 must be from 0 to 1"),
    ],
)
def test_a_start_that_cannot_work_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError) as error:
        distributed.start_distributed(**arguments)
    assert message in str(error.value)


# ---- Hangs and orphans.

HANGS = """
import sys, threading, time
from t5x_like.train.watchdog import Watchdog
dog = Watchdog({"compile": 60.0, "step": 1.0, "save": 60.0, "evaluate": 60.0})
def waits_for_a_peer():
    print("hanging", flush=True)
    threading.Event().wait()
for _ in range(5):
    dog.progress("step")
    time.sleep(0.05)
waits_for_a_peer()
"""


def test_a_hanging_step_is_ended_with_the_stack_that_shows_where():
    with running(HANGS) as (process,):
        code, _, errors = outcome(process)
    assert code == guards.TRY_AGAIN == 75
    assert "no progress for 1 s in phase step" in errors and "in waits_for_a_peer" in errors


SLOW_START = """
import time
from t5x_like.train.watchdog import Watchdog
dog = Watchdog({"compile": 60.0, "step": 0.6})
print("compiling", flush=True)
time.sleep(1.2)
dog.progress("step")
for _ in range(20):
    time.sleep(0.05)
    dog.progress("step")
dog.close()
print("done", flush=True)
"""


def test_a_slow_compilation_and_a_stopped_process_are_no_hang():
    with running(SLOW_START) as (process,):
        wait_for_line(process, "compiling")
        time.sleep(1.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        code, output, errors = outcome(process)
    assert (code, output.strip()) == (0, "done"), errors


def test_a_phase_that_the_watchdog_does_not_know_is_refused():
    dog = watchdog.Watchdog()
    with pytest.raises(ValueError, match="no limit for 'evaluating', only for compile, step, save, evaluate"):
        dog.progress("evaluating")
    dog.close()
    with pytest.raises(ValueError, match="must be above 0 seconds"):
        watchdog.Watchdog({"step": 0.0})


TRAINER = """
import multiprocessing, os, sys, threading, time
from t5x_like.train import guards
def work(parent):
    guards.follow_parent(parent)
    while True:
        time.sleep(1)
def start():  # in a thread that ends, as data libraries do
    workers = [multiprocessing.get_context("fork").Process(target=work, args=(os.getpid(),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    print("workers", *(worker.pid for worker in workers), flush=True)
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(100)
"""


def ended(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")
def test_a_killed_trainer_leaves_no_worker_behind():
    with running(TRAINER) as (process,):
        pids = [int(word) for word in wait_for_line(process, "workers").split()[1:]]
        time.sleep(1.0)
        assert not any(map(ended, pids)), "workers live as long as their trainer"
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: all(map(ended, pids)), seconds=10)
