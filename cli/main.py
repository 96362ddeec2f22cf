"""The ``riformer-deploy`` command."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from riformer_deploy import __version__
from riformer_deploy.common.display import displayed
from riformer_deploy.common.errors import OptionError, RIFormerDeployError

from . import output, progress, streams
from .command import USAGE_ERROR, App, Group
from .command_list import COMMANDS, SERVE, VERIFY
from .options import Debug
from .output import print_error


class _Root(Group):
    listed = COMMANDS


class _Verify(Group):
    listed = VERIFY


class _Serve(Group):
    listed = SERVE


app = App(
    cls=_Root,
    name="riformer-deploy",
    help="RIFormer checkpoints to verified deployment artifacts.",
    epilog="Example: riformer-deploy run ckpt.pth --calibration photos --data imagenet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it needs half the time, since Rich is not imported for it
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(
    App(
        cls=_Verify,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Verify that artifacts compute the reference's function, and how often they are right.",
    ),
    name="verify",
)
app.add_typer(
    App(
        cls=_Serve,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Put a bundle's models into a server, and check what it gives.",
    ),
    name="serve",
)


_SIGPIPE = 141  # 128 and the signal's number, as a shell has it
_INTERRUPTED = 130
_TORCH_IS_OUT = "DefaultCPUAllocator: can't allocate memory"
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"riformer-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # its callback does the work
        bool,
        typer.Option(
            "--version",
            help="Show the version.",
            callback=_show_version,
            is_eager=True,
            allow_from_autoenv=False,
        ),
    ] = False,
    config: Annotated[  # commands read it
        Path | None,
        typer.Option(metavar="FILE.toml", help="Options by command, such as max-seconds = 20 under [bench]."),
    ] = None,
    debug: Debug = False,  # its callback does the work
) -> None:
    pass


def run() -> None:
    """Entry point: every error becomes one message and an exit code."""
    output.set_up_logging()
    streams.choose_verbosity(streams.Verbosity.NORMAL)
    arguments = sys.argv[1:]
    streams.ask_json(asked="--json" in arguments)
    if "--debug" not in arguments:  # of odd metadata in pictures, which decides nothing here
        warnings.filterwarnings("ignore", module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets escapes, not an error
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stderr.write("error: standard output is closed; direct it to a file, or to /dev/null\n")
        sys.exit(OptionError.exit_code)
    with _unwinding_on_signals() as came:
        try:
            code = _run()
            sys.stdout.flush()
        except KeyboardInterrupt:  # before a command had begun; commands tell more
            code = _INTERRUPTED
        except (SystemExit, OSError) as err:  # a terminal that hung up takes no message either
            code = _INTERRUPTED if came else _code_for_stdout(err)
    sys.exit(128 + came[0] if came and code != 0 else code)


@contextlib.contextmanager
def _unwinding_on_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing half written stays.

    Yields:
        The number of the signal that came, once one did.
    """
    came: list[int] = []
    # nohup's are ignored already; and only the main thread may set any
    mine = threading.current_thread() is threading.main_thread()
    handled = [n for n in (signal.SIGTERM, signal.SIGHUP) if mine and signal.getsignal(n) is signal.SIG_DFL]

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in handled:  # a second one would interrupt the tidying up
            signal.signal(each, signal.SIG_IGN)
        came.append(number)
        raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def _run() -> int:
    """Run the command and return its exit code; what goes wrong with standard output is raised."""
    try:
        return app(prog_name="riformer-deploy", standalone_mode=False) or 0
    except USAGE_ERROR as err:
        wrong: Any = err
        wrong.message = "\n".join([_plain(wrong.message), *getattr(err, "__notes__", ())])
        if streams.json_asked():
            print_error("UsageError", wrong.exit_code, wrong.format_message(), as_json=True)
        else:
            text = io.StringIO()
            wrong.show(file=text)
            sys.stderr.write(displayed(text.getvalue()))
        return int(wrong.exit_code)
    except RIFormerDeployError as err:
        _show_traceback()
        message = "\n".join([str(err), *getattr(err, "__notes__", ())])
        print_error(type(err).__name__, err.exit_code, message, as_json=streams.json_asked())
        return err.exit_code
    except Exception as err:  # no traceback reaches a user who did not ask for it
        if isinstance(err, OSError) and _while_printing(err):
            raise
        _show_traceback()
        if (refusal := _refusal(err)) is not None:
            print_error("OptionError", OptionError.exit_code, refusal, as_json=streams.json_asked())
            return OptionError.exit_code
        message = (
            f"internal error, {type(err).__name__}: {err}\nRun the command again with --debug and report it."
        )
        print_error("InternalError", RIFormerDeployError.exit_code, message, as_json=streams.json_asked())
        return RIFormerDeployError.exit_code


def _refusal(err: Exception) -> str | None:
    """What the system does not do with a file, or for want of space or memory; None where it is a defect."""
    if isinstance(err, MemoryError) or (isinstance(err, RuntimeError) and _TORCH_IS_OUT in str(err)):
        return f"There is not enough memory: {err}.\nSmaller batches and sizes take less."
    if not isinstance(err, OSError) or (err.filename is None and err.errno not in _EXHAUSTED):
        return None
    name = err.filename if err.filename2 is None else err.filename2
    if isinstance(name, str | bytes):
        return f"{os.fsdecode(name)} cannot be used: {err.strerror}."
    return f"The system refused what was asked for: {err.strerror}."


def _show_traceback() -> None:
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        traceback.print_exc()


def _plain(message: str) -> str:
    """What is wrong with a value, without the words of the validators that some versions of Typer use."""
    message = message.removeprefix("Value error, ")
    return re.sub(r"^Input should be a valid (\w+)(, .*)?$", r"it must be a valid \1", message)


def _while_printing(err: OSError) -> bool:
    """Whether writing to the screen failed: in our output, or in Typer's for ``--help`` and ``--version``."""
    frames = traceback.extract_tb(err.__traceback__)
    screens = {output.__file__, progress.__file__, streams.__file__}
    ours = any(frame.filename in screens for frame in frames)
    return ours or not {"click", "rich", "typer"}.isdisjoint(Path(frames[-1].filename).parts)


def _code_for_stdout(err: BaseException) -> int:
    """The exit code where standard output fails: as if by SIGPIPE, quietly, where its reader is gone."""
    cause: BaseException | None = err
    while cause is not None and not isinstance(cause, BrokenPipeError):
        cause = cause.__context__  # Typer and Rich make an exit of it
    if cause is None and isinstance(err, SystemExit):
        return err.code if isinstance(err.code, int) else 0 if err.code is None else 1
    with contextlib.suppress(OSError, ValueError):  # so that Python does not try once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if cause is not None:
        return _SIGPIPE
    sys.stderr.write(f"error: standard output cannot be written: {err}\n")
    return OptionError.exit_code
