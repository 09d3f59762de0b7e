"""A journal survives what a crash leaves of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from spaces import MIXED

from megavox.core.claims import Claims
from megavox.core.errors import MachineError
from megavox.search.ledger import Ledger
from megavox.search.sampler import AsynchronousSampler
from megavox.search.storage import answering, mend, open_storage
from postgres_here import postgres

TRIALS = 3


def studied(path: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=open_storage(path), study_name="s", load_if_exists=True)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.log"
    study = studied(path)
    for number in range(TRIALS):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("note", 'a text with {"op_code": in it')
        study.tell(trial, number)
    return path


def test_a_journal_that_is_cut_off_anywhere_opens_with_all_that_was_whole(journal: Path, tmp_path: Path) -> None:
    data = journal.read_bytes()
    last = [place for place in range(len(data)) if data[place:place + 1] == b"\n"][-4]
    for end in range(last, len(data)):
        cut = tmp_path / "cut.log"
        cut.write_bytes(data[:end])
        whole = [line for line in data.split(b"\n") if line and line in data[:end]]
        mend(cut)
        assert cut.read_bytes() == b"".join(line + b"\n" for line in whole)
    cut.write_bytes(data[:last + 20])
    study = studied(cut)
    study.tell(study.ask(), 0.5)
    assert studied(cut).trials[-1].value == 0.5, "what is written behind it is read"


def test_without_that_it_would_be_unreadable_for_ever(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes()[:-10])
    plain = optuna.storages.journal.JournalFileBackend(str(journal))
    plain.append_logs([{"op_code": 2}, {"op_code": 2}])
    with pytest.raises(ValueError, match=r"delimiter|Expecting|Extra"):
        list(plain.read_logs(0))


def test_a_record_behind_a_rest_is_kept(journal: Path) -> None:
    data = journal.read_bytes()
    lines = data.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], lines[5][:9], *lines[5:]]))
    mend(journal)
    assert journal.read_bytes() == data
    assert [trial.value for trial in studied(journal).trials] == [0.0, 1.0, 2.0]
    before = journal.stat().st_mtime_ns
    mend(journal)
    assert journal.stat().st_mtime_ns == before, "a whole journal is left alone"


def test_a_lock_ends_with_its_process(journal: Path) -> None:
    code = (f"import sys, time; sys.path.insert(0, 'src')\nfrom pathlib import Path\n"
            f"from megavox.search.storage import _KernelLock\n"
            f"_KernelLock(Path({str(journal.with_suffix('.lock'))!r})).acquire(); print('has it', flush=True)\n"
            "time.sleep(100)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "has it\n"
        holder.kill()
    with Claims(journal.with_suffix(".lock")) as claims:
        assert claims.take("journal")
    assert len(studied(journal).trials) == TRIALS


def test_a_database_that_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(MachineError, match=r"does not answer.*search\.storage") as told:
        open_storage("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(told.value)
    with pytest.raises(MachineError, match=r"not installed: \w+"):
        open_storage("oracle+cx_oracle://me:secret@127.0.0.1:1/none")


def test_a_search_in_postgresql_is_seen_from_everywhere_and_outlives_its_server() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with postgres() as server:
        ledgers = [Ledger(open_storage(server.url), MIXED, AsynchronousSampler(MIXED, 0), "minimise", "s")
                   for _ in range(2)]
        here = Ledger(open_storage(server.url.replace("postgresql:", "postgresql+psycopg:")), MIXED,
                      AsynchronousSampler(MIXED, 0), "minimise", "s")
        for number in range(6):
            one, other = ledgers[number % 2], ledgers[1 - number % 2]
            trial = one.propose()
            assert [running.number for running in other.under_way()] == [number]
            one.report(trial, 0.5, 1.0 + number)
            if number == 3:
                server.down()
                server.up()
            other.end(trial, float(number))
        assert [trial.value for trial in here.trials()] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert all(here.setting(trial) for trial in here.trials())
        assert here.ended()[2] == ([(0.5, 3.0)], 2.0)
        server.down()
        with pytest.raises(MachineError, match="does not answer any more"), answering(server.url):
            here.propose()
        server.up()
        journal = Ledger(optuna.storages.InMemoryStorage(), MIXED, AsynchronousSampler(MIXED, 0), "minimise", "s")
        for number in range(6):
            journal.end(journal.propose(), float(number))
        assert [one.params for one in journal.trials()] == [one.params for one in here.trials()], "as from a journal"
        for ledger in (*ledgers, here):
            assert isinstance(ledger.storage, RDBStorage)
            ledger.storage.remove_session()
            ledger.storage.engine.dispose()
