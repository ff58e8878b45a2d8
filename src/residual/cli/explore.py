"""`residual explore`: a store in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def explore(
    store: o.Store,
    other: Annotated[
        str | None, typer.Argument(help="A second store of the same encoder: which heads move?")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="An adapter of the encoder, a folder, to apply in the page; can be given again."),
    ] = None,
    encoder: o.StoreEncoder = None,
    dataset: o.StoreDataset = None,
    dictionary: Annotated[
        str,
        typer.Option(
            help="Texts to tell heads by: a list that ships (attributes, emoji, words), or a file, a text a "
            "line or a JSON list."
        ),
    ] = "attributes",
    host: Annotated[
        str,
        typer.Option(help="Another address than this machine's own lets others in, who need the token."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="If it is taken, the next free one; 0: any.")
    ] = 6010,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    export: Annotated[
        Path | None,
        typer.Option(help="Serve nothing: write one file, FILE.html, that needs no server (at most 20 MB)."),
    ] = None,
    overwrite: o.Overwrite = False,
    device: o.Device = None,
) -> None:
    """Look at a store in the browser: what each head does, and what happens without it.

    The page is served on this machine alone and asks nothing of any other; over SSH, forward the port:
    ssh -L 6010:localhost:6010 HOST. Coordinates answer; the encoder is loaded for new texts and pictures.

    Examples:

        residual explore letters-test

        residual explore letters-test --adapter letters-adapter --dictionary words

        residual explore photos sketches --port 8080 --no-open

        residual explore letters-test --export letters.html
    """
    from residual import cli
    from residual.cli.console import check_outputs, note, out, show_origin, stages
    from residual.cli.stopping import Stopped
    from residual.errors import ResidualError
    from residual.explore.serving import (
        address_of,
        check_libraries,
        end_now,
        is_loopback,
        listening,
        new_token,
        open_page,
        serve,
    )
    from residual.workflows.exploration import Exploration, Sources

    names = [store] if other is None else [store, other]
    sources = Sources(names, adapter or (), encoder, dataset, dictionary, device)
    if export is not None:
        from residual.explore.export import export_page
        from residual.outputs import Output
        from residual.products import EXPLORED_PAGE

        check_outputs(overwrite, Output("--export", export, EXPLORED_PAGE))
        exploration = Exploration(sources)
        exploration.check()
        with stages() as show:
            written = export_page(exploration, export, overwrite=overwrite, progress=show)
        show_origin(exploration.parts.origin)
        for told in written.cut:
            note(told)
        out.print(f"The page to look at: {export} ({written.size / 1e6:.1f} MB)")
        return
    token = None if is_loopback(host) else new_token()
    found = listening(host, port)
    try:
        check_libraries()
        exploration = Exploration(sources)
        exploration.check()
        address = address_of(found, token)
        taken = found.getsockname()[1]
        if port and taken != port:
            note(f"Port {port} is taken: this is {taken}.")
        out.print(f"{address}\nCtrl+C ends it.")

        def ready() -> None:
            try:
                show_origin(exploration.parts.origin)
            except ResidualError as error:  # the page says so, too
                note(f"{error.message} {cli.way_out(error)}")
            if open_:
                open_page(address)

        exploration.warm(ready)
        serve(exploration, host, token=token, sockets=[found], way=cli.way_out)
    except Stopped:  # by a signal, which is how it ends
        pass
    finally:
        found.close()
    out.print("Ended.")
    end_now()
