"""The command ``comet-rec serve``: an HTTP service over a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comet_rec.cli import options
from comet_rec.cli.evaluate import Run
from comet_rec.cli.ids import titles_of_file
from comet_rec.cli.terminal import say, show
from comet_rec.config import MOST_THREADS
from comet_rec.errors import InputError

Port = Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 for any free one.")]


def serve(
    run: Run,
    port: Port = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="A second run, to compare on the page.")
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of item_id and title.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="API keys, one per line, or sha256:DIGEST. COMET_REC_API_KEYS may hold more.",
        ),
    ] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Port on 127.0.0.1 for POST /admin/swap. Default: none."
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; others get status 503.")
    ] = 1024,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds to go on answering after SIGTERM, at most.")
    ] = 10.0,
    threads: Annotated[
        int | None, typer.Option(min=1, max=MOST_THREADS, help="Number of threads.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log no single requests.")] = False,
) -> None:
    """Answer HTTP requests with the lists of a run, and show a page at /.

    SIGHUP reads RUN anew, which may be a symbolic link. SIGTERM answers what has come, and ends.
    """
    try:
        from comet_rec.serving.server import Settings
        from comet_rec.serving.server import serve as serve_until_end
    except ImportError as error:
        raise InputError(
            f'serve: {error.name} is not installed; pip install "comet-rec[serve]"'
        ) from None
    from comet_rec.serving.keys import Keys

    options.set_threads(threads)
    admitted = Keys.read(keys)
    if host not in ("127.0.0.1", "localhost", "::1") and len(admitted) == 0:
        say(
            f"note: {host} may be reached from other machines, and no API key is needed; see --keys"
        )

    def started(address: str) -> None:
        show(f"{run} answers on {address} (Ctrl-C ends it)")
        if open_:
            import webbrowser

            webbrowser.open(address)

    settings = Settings(
        run=run, compare=compare, titles=titles_of_file(titles) if titles else None, host=host,
        port=port, keys=admitted, admin_port=admin_port, queue=queue, drain=drain, quiet=quiet,
    )  # fmt: skip
    serve_until_end(settings, started=started)
