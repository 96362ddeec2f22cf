"""The ``riformer-deploy`` command."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, Any

import typer

from riformer_deploy import __version__
from riformer_deploy.common.display import displayed
from riformer_deploy.common.errors import OptionError, RIFormerDeployError

from . import commands, output
from .options import Debug
from .output import print_error

app = typer.Typer(
    name="riformer-deploy",
    help="RIFormer checkpoints to verified deployment artifacts.",
    epilog="Example: riformer-deploy export ckpt.pth && riformer-deploy verify parity",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it needs half the time, since Rich is not imported for it
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verify_app = typer.Typer(
    help="Verify that artifacts compute the reference's function, and how often they are right.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("export", epilog="Example: riformer-deploy export ckpt.pth -o bundle --image-size 224")(
    commands.export
)
app.command("fuse", epilog="Example: riformer-deploy fuse ckpt.pth -o deploy.pth")(commands.fuse)
app.command(
    "reparameterize",
    epilog="Example: riformer-deploy reparameterize riformer-s12_8xb128_in1k.py ckpt.pth deploy.pth",
)(commands.reparameterize)
app.command("test", epilog="Example: riformer-deploy test config.py ckpt.pth --data data/imagenet")(
    commands.evaluate
)
verify_app.command("parity", epilog="Example: riformer-deploy verify parity bundle --json")(commands.parity)
verify_app.command(
    "accuracy", epilog="Example: riformer-deploy verify accuracy bundle --data imagenet --max-drop 0.1"
)(commands.accuracy)
app.add_typer(verify_app, name="verify")
serve_app = typer.Typer(
    help="Put a bundle's models into a server, and check what it gives.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
serve_app.command("triton", epilog="Example: riformer-deploy serve triton bundle -o models --precision fp16")(
    commands.triton
)
serve_app.command("check", epilog="Example: riformer-deploy serve check http://localhost:8000 bundle --json")(
    commands.check
)
app.add_typer(serve_app, name="serve")
app.command("bench", epilog="Example: riformer-deploy bench bundle --onnx --batch 1 --batch 8")(
    commands.bench
)
app.command("build", epilog="Example: riformer-deploy build bundle --precision fp16 --profile 1:8:32")(
    commands.build
)
app.command("report", epilog="Example: riformer-deploy report bundle -o report.html")(commands.report)
app.command(
    "compare", epilog="Example: riformer-deploy compare old-bundle bundle --max-slowdown 5% --max-drop 0.1"
)(commands.compare)
app.command("predict", epilog="Example: riformer-deploy predict photos/ 'more/*.jpg' bundle --top 3")(
    commands.predict
)
app.command("features", epilog="Example: riformer-deploy features photos/ bundle -o features.npz")(
    commands.features
)
app.command("score", epilog="Example: riformer-deploy score photos/ bundle -o scores.parquet --cluster auto")(
    commands.score
)
app.command("download", epilog="Example: riformer-deploy download riformer-s12_in1k -o checkpoints")(
    commands.download
)
app.command("reproduce", epilog="Example: riformer-deploy reproduce riformer-s12_in1k --data imagenet")(
    commands.reproduce
)
app.command("sensitivity", epilog="Example: riformer-deploy sensitivity bundle --calibration images.npz")(
    commands.sensitivity
)
app.command("inspect", epilog="Example: riformer-deploy inspect ckpt.pth")(commands.inspect)
app.command("models", epilog="Example: riformer-deploy models --json")(commands.models)
app.command("doctor", epilog="Example: riformer-deploy doctor")(commands.doctor)


_SIGPIPE = 141  # 128 and the signal's number, as a shell has it
_INTERRUPTED = 130

# What Typer raises for a wrong command line; it has no public name of its own there.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"riformer-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # its callback does the work
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Debug = False,  # its callback does the work
) -> None:
    pass


def run() -> None:
    """Entry point: every error becomes one message and an exit code."""
    output.set_up_logging()
    arguments = sys.argv[1:]
    as_json, debug = "--json" in arguments, "--debug" in arguments
    if not debug:  # of odd metadata in pictures, which decides nothing here
        warnings.filterwarnings("ignore", module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets escapes, not an error
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stderr.write("error: standard output is closed; direct it to a file, or to /dev/null\n")
        sys.exit(OptionError.exit_code)
    with _unwinding_on_signals() as came:
        try:
            code = _run(as_json=as_json, debug=debug)
            sys.stdout.flush()
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


def _run(*, as_json: bool, debug: bool) -> int:
    """Run the command and return its exit code; what goes wrong with standard output is raised."""
    try:
        return app(prog_name="riformer-deploy", standalone_mode=False) or 0
    except _UsageError as err:
        wrong: Any = err
        wrong.message = _plain(wrong.message)
        if as_json:
            print_error("UsageError", wrong.exit_code, wrong.format_message(), as_json=True)
        else:
            text = io.StringIO()
            wrong.show(file=text)
            sys.stderr.write(displayed(text.getvalue()))
        return int(wrong.exit_code)
    except RIFormerDeployError as err:
        if debug:
            traceback.print_exc()
        print_error(type(err).__name__, err.exit_code, str(err), as_json=as_json)
        return err.exit_code
    except Exception as err:  # no traceback reaches a user who did not ask for it
        if isinstance(err, OSError) and _while_printing(err):
            raise
        if debug:
            traceback.print_exc()
        message = (
            f"internal error, {type(err).__name__}: {err}\nRun the command again with --debug and report it."
        )
        print_error("InternalError", RIFormerDeployError.exit_code, message, as_json=as_json)
        return RIFormerDeployError.exit_code


def _plain(message: str) -> str:
    """What is wrong with a value, without the words of the validators that some versions of Typer use."""
    message = message.removeprefix("Value error, ")
    return re.sub(r"^Input should be a valid (\w+)(, .*)?$", r"it must be a valid \1", message)


def _while_printing(err: OSError) -> bool:
    return any(frame.filename == output.__file__ for frame in traceback.extract_tb(err.__traceback__))


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
