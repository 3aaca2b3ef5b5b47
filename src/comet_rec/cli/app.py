"""The program ``comet-rec``: all commands, and the exit status.

The status is 0 if all went well, and 1 for an internal error. It is 2 for a fault in the input or
the environment, with one line on stderr. It is 130 after an interrupt.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from typing import Annotated, Any

import typer

from comet_rec import __version__, memory
from comet_rec.cli import (
    audit,
    compare,
    data,
    evaluate,
    export,
    launched,
    recommend,
    reproduce,
    serve,
    train,
    tune,
    update,
)
from comet_rec.cli.options import Commands
from comet_rec.cli.terminal import Lenient, begin, open_descriptors, say, show
from comet_rec.errors import (
    CometError,
    CometWarning,
    InputError,
    TrainingInterrupted,
    did_you_mean,
    messages_for,
)
from comet_rec.text import printable, shortened

FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}
LONGEST = 2_000
"""Longest message in characters; a message may quote user input of any length."""
UsageError: Any = typer.BadParameter.__bases__[0]  # typer has no public name for it

app = typer.Typer(
    name="comet-rec",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("recommend")(recommend.recommend)
app.command("update")(update.update)
app.command("serve")(serve.serve)
app.command("export")(export.export)
app.command("compare")(compare.compare)
app.command("tune")(tune.tune)
app.command("reproduce")(reproduce.reproduce)
app.command("inspect")(reproduce.inspect)
app.command("audit")(audit.audit)
app.add_typer(data.app, name="data")


def _version(requested: bool) -> None:
    if requested:
        show(f"comet-rec {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """COMET, a recommender for implicit feedback: train, evaluate, recommend."""


program = typer.main.get_command(app)
"""The commands as typer runs them; it would build them anew for each call of `app`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    open_descriptors()
    # Replaced for the whole process, because its buffer is written at the very end. If stderr was
    # closed, Python has none, but libraries write to it.
    sys.stderr = Lenient(sys.stderr or open(os.devnull, "w"))  # noqa: SIM115
    status = run(arguments)
    if launched.size() > 1:
        # Threads of gloo now and then abort a process that ends in the usual way, after its work is
        # done. torchrun would then count it as failed.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)
    sys.exit(status)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # Must be set before torch is loaded. Waiting threads must not take the core of the thread that
    # samples the next batch (28,000 instead of 20,000 positives/s on two cores, docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Large pages: the first access to new memory costs more than the arithmetic on it.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with warnings.catch_warnings(), messages_for("shell"), memory.limited(None):
        warnings.simplefilter("default", CometWarning)  # once, even if a refit trains again
        warnings.showwarning = _show
        begin()
        return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    """Run the command line; turn errors into a line on stderr and an exit status."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        _refuse_bytes(given)
        _refuse_processes(given)
        status = int(program(arguments, prog_name="comet-rec", standalone_mode=False) or 0)
        # Typer returns 130 for an interrupt that no command caught, without a message.
        return _say("interrupted", 130) if status == 130 else status
    except typer.Exit as stop:
        return stop.exit_code
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            show(error.format_message())
            return 2
        where = error.ctx.command_path if error.ctx else "comet-rec"
        text = _usage(error)
        end = "" if text.endswith((".", "?")) else "."
        return _say(f"{text}{end} See `{where} --help`.", 2)
    except InputError as error:
        return _say(str(error), 2)
    except TrainingInterrupted as error:
        return _say(str(error), 130)
    except CometError as error:
        return _say(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except BrokenPipeError:  # the reader of stdout has gone, e.g. `| head`
        sys.stdout = None
        return 0
    except RuntimeError as error:
        if launched.size() > 1 and re.search("gloo|NCCL|closed by peer", str(error)):
            return _say("the connection to another process is lost: that one has failed", 1)
        raise  # an internal error
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            sys.stdout = None  # else Python would write to it once more
            return _say(f"standard output: {error.strerror}; free space, or write elsewhere", 2)
        if error.errno in FULL | REFUSED and error.filename is not None:
            return _say(f"{error.filename}: {error.strerror}; give another path", 2)
        raise  # an internal error


def _refuse_bytes(arguments: list[str]) -> None:
    """Refuse arguments that are not valid UTF-8: no library could use them as file names or ids."""
    for argument in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise InputError(
                f"{argument!r}: is not valid UTF-8; rename the file, or write the text in UTF-8"
            )


def _refuse_processes(arguments: list[str]) -> None:
    """Refuse to run a command in several processes that each would do all of its work."""
    if launched.size() > 1 and arguments and arguments[0] not in ("train", "recommend"):
        raise InputError(
            f"{shortened(arguments[0])}: runs in one process; torchrun is for train, and for "
            "recommend with --all-users"
        )


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """Show a `CometWarning` as a note, and any other warning as Python does."""
    if sys.stderr is None:
        return
    if issubclass(category, CometWarning):
        say(f"note: {message}")
        return
    plain = warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write("\n".join(map(printable, plain.split("\n"))))


def _usage(error: Any) -> str:
    """One line about a wrong option or value, made from typer's error."""
    if type(error).__name__ != "NoSuchOption" or error.ctx is None:
        return " ".join(error.format_message().split())
    valid = [
        name
        for parameter in error.ctx.command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    ]
    hint = did_you_mean(error.option_name, [*valid, *error.ctx.help_option_names])
    return f"No such option {error.option_name}; {hint}"


def _say(text: str, status: int) -> int:
    """Print one line to stderr and return the exit status.

    In several processes each error names its process, unless all processes have the same one.
    """
    line = "comet-rec: " + shortened(printable(text), LONGEST)
    if launched.rank() > 0 and (status == 1 or launched.local_rank() == 0):
        sys.stderr.write(f"rank {launched.rank()}: {line}\n")
    say(line)
    return status


if __name__ == "__main__":
    main()
