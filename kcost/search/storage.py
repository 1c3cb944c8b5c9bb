"""Opening the database of a study, with the messages that a user needs when that fails."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kcost.core.errors import InputError, KcostError, UnavailableError, first_line
from kcost.search.request import SearchRequest

DATABASE_FILE = "study.db"

HEARTBEAT_S = 10
"""A running trial says so in the database this often."""

GRACE_S = 40
"""A running trial that has not for so long is taken for dead, and tried again."""

MAX_RETRIES = 2
"""How often a trial whose process died is tried again."""

OPENING_ATTEMPTS = 5
LOCK_TIMEOUT_S = 60
"""How long one process waits for another that writes to the same SQLite file."""

_DRIVERS = {
    "psycopg": "pip install 'psycopg[binary]'",
    "psycopg2": "pip install psycopg2-binary",
    "MySQLdb": "pip install mysqlclient",
    "pymysql": "pip install pymysql",
}


def require_optuna() -> Any:
    """The module optuna.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "A search needs optuna.",
            received=f"an environment without {error.name}",
            remedy="Install it: pip install 'kcost[search]'",
        ) from error
    return optuna


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log, and without its warnings that heartbeats and retries may change."""
    optuna = require_optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR + 10)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def storage_url(request: SearchRequest) -> str:
    """The URL of the study's database."""
    return request.storage or f"sqlite:///{request.out.absolute() / DATABASE_FILE}"


def shown_url(url: str) -> str:
    """The URL with a password in it hidden."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:  # it may hold a password in a place that only a person would know
        return "what cannot be read as a URL"


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turns what a database, or the way to it, does wrong into an UnavailableError."""
    try:
        yield
    except KcostError:
        raise
    except Exception as error:
        cause = _database_error(error)
        if cause is None:
            raise
        reason = first_line(str(getattr(cause, "orig", None) or cause)) or type(cause).__name__
        raise UnavailableError(
            "The database of a study can be reached, read and written.",
            received=f"{shown_url(url)}: {reason}",
            remedy="See that the server runs, that the database in the URL exists, and that you may write to it. "
            "Finished trials are kept; the same command goes on with them.",
        ) from error


def _database_error(error: BaseException | None) -> BaseException | None:
    """What SQLAlchemy said first. Optuna meets a server that goes away with errors of its own on top of that."""
    from sqlalchemy.exc import SQLAlchemyError

    while error is not None and not isinstance(error, SQLAlchemyError):
        error = error.__cause__ or error.__context__
    return error


class OpenStudy(NamedTuple):
    """A study of optuna and the database that it lies in."""

    study: Any
    storage: Any

    def beat_for(self, trial_number: int) -> None:
        """Writes a heartbeat of a trial, as the process that runs it does every HEARTBEAT_S."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        self.storage.record_heartbeat(trial_id)


def open_study(request: SearchRequest, first: dict[str, Any]) -> OpenStudy:
    """The study, made where it is not there yet.

    Args:
        first: the parameters of the first trial.

    Raises:
        InputError: not a URL of a database, or the study is one of a search that asked for something else.
        UnavailableError: optuna or the database's driver is not installed, or the database cannot be reached.
    """
    optuna = require_optuna()
    from kcost.search.sampler import SeededByTrial

    url = storage_url(request)
    with database_errors(url):
        held = _storage(url)
        study = optuna.create_study(
            storage=held,
            study_name=request.study_name,
            directions=["maximize", "minimize"],
            sampler=SeededByTrial(request.seed, first),
            load_if_exists=True,
        )
        _claim(study, request)
    return OpenStudy(study, held)


def _storage(url: str) -> Any:
    import optuna
    from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

    engine = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if url.startswith("sqlite") else {}
    for attempt in range(OPENING_ATTEMPTS):
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
            )
        except ArgumentError as error:
            raise InputError(
                "The storage of a study is the URL of a database.",
                received=shown_url(url),
                remedy="For example sqlite:////folder/study.db, postgresql://user@host/database, mysql://...",
            ) from error
        except ImportError as error:
            module = getattr(error.__cause__, "name", None) or "its driver"
            raise UnavailableError(
                "The database of a study needs its driver.",
                received=f"{shown_url(url)}, in an environment without {module}",
                remedy=f"Install it: {_DRIVERS.get(module, f'pip install {module}')}",
            ) from error
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            # Two processes that find a new database both make its tables; the slower one tries again.
            message = str(error.orig).lower()
            other_was_faster = any(word in message for word in ("already exists", "duplicate", "unique"))
            if not other_was_faster or attempt == OPENING_ATTEMPTS - 1:
                raise
            time.sleep(0.2 * (attempt + 1))
        except RuntimeError as error:  # the tables are of another version; optuna's message says what to run
            raise UnavailableError(
                "The optuna that is installed reads the study's database.", received=shown_url(url), remedy=str(error)
            ) from error
    raise AssertionError("unreachable: the last attempt raises")


def _claim(study: Any, request: SearchRequest) -> None:
    """Writes what is searched into a new study, and holds it against what an existing one says."""
    wanted = request.identity()
    held = study.user_attrs.get("search")
    if held is None:
        study.set_user_attr("search", wanted)
        return
    differing = [
        f"{name} {held.get(name)!r}, asked for {wanted.get(name)!r}"
        for name in sorted({*held, *wanted})
        if held.get(name) != wanted.get(name)
    ]
    if differing:
        raise InputError(
            "All trials of a study have the same settings.",
            received=f"the study {study.study_name!r}, which has {'; '.join(differing)}",
            remedy="Ask for the same again, or start another study with another --study name or --out folder.",
        )
