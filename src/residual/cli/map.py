"""`residual map`: where in a picture heads find a text, a class or a component."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def map_(
    pictures: Annotated[list[Path], typer.Argument(help="Files of pictures.", metavar="PICTURE")],
    text: Annotated[list[str] | None, typer.Option(help="A map of what it says; can be given again.")] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A map of what speaks for it, of the classes of --dataset or --adapter; can be given again. "
            "[default: what each picture is taken for]",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="A text or a class to tell it from; of several, from their mean. [default: all classes, or "
            "many texts]"
        ),
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(help="A component of a head, of --bases: 11.4:0 is the first; can be given again."),
    ] = None,
    bases: Annotated[Path | None, typer.Option(help="A file that `residual bases` wrote.")] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(help="Layer and head, such as 11.4; of several their sum. [default: all heads]"),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="So many heads apart, that add or take most in each picture."),
    ] = None,
    unsigned: Annotated[
        bool,
        typer.Option(
            "--unsigned",
            help="Leave out what each head finds against it: shows better where a thing is, but tells it "
            "less from others.",
        ),
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help="Whose classes these are, as `residual datasets` lists them.")
    ] = None,
    encoder: o.Encoder = None,
    adapter: Annotated[
        str | None,
        typer.Option(help="What `residual train` wrote, or a repository of the hub: for maps of its output."),
    ] = None,
    figures: o.Figures = None,
    json: Annotated[Path | None, typer.Option(help="Write the maps here, as JSON.")] = None,
    overwrite: o.Overwrite = False,
    device: o.Device = None,
) -> None:
    """Show where in a picture heads find a text, a class or a component: orange is for it, blue against.

    A map has what each patch adds to the score, by the heads that attend to it. The table tells what it
    leaves out, so that a line adds up to the score: other tokens (class token, registers) and the rest
    (MLPs, embedding, heads that aren't asked for).

    Examples:

        residual map cat.jpg --text "a cat" --text "a sofa" --figures maps

        residual map cat.jpg --text "a cat" --against "a dog" --top 10 --figures maps

        residual map *.png --dataset counting --figures maps                 # what each is taken for

        residual map sign.png --dataset road-signs --class stop --against "no entry" --head 7.2 --head 6.5

        residual map a.png --adapter letters-adapter --class A --figures maps --json maps.json

        residual map a.png --component 7.2:0 --bases bases.safetensors --figures maps
    """
    from residual.cli.console import check_outputs, json_of, note, out, stages, steps, write_result
    from residual.errors import printable
    from residual.outputs import Output
    from residual.products import FIGURES
    from residual.report import check_matplotlib, maps_figure, maps_table, save_figures
    from residual.report.figures import figure_files
    from residual.workflows.map import MapRequest, figure_names, map_pictures

    if figures:
        check_matplotlib()
    request = MapRequest(
        texts=tuple(text or ()),
        classes=tuple(class_ or ()),
        against=tuple(against or ()),
        components=tuple(component or ()),
        bases=None if bases is None else str(bases),
        dataset=dataset,
        heads=tuple(head or ()),
        top=top,
        signed=not unsigned,
    )
    names = figure_names(pictures)
    check_outputs(overwrite, json_of(json, "map"), Output("--figures", figures, FIGURES, figure_files(names)))
    with stages() as show:
        made = map_pictures(pictures, request, encoder=encoder, adapter=adapter, device=device, progress=show)
    with steps() as step:
        with step():
            less = f", less {made.less}" if made.less else ""
            out.print(maps_table(made.pictures, f"by {made.encoder}{less}"))
            for told in made.notes:
                note(told)
            for each in made.pictures:
                if each.about:
                    out.print(printable(f"{each.name}: {each.about}".replace("\n", ", ")))
        with step():
            write_result(json, made.result)
        if figures:
            drawn = {
                name: maps_figure(each, made.scale, f"{each.name}, by {made.encoder}", made.less)
                for name, each in zip(names, made.pictures, strict=True)
            }
            for path in save_figures(drawn, figures, overwrite):
                out.print(f"{path}")
