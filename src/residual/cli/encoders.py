"""`residual encoders`: what can be loaded, and what is inside."""

from __future__ import annotations

from typing import Annotated

import typer

from residual.cli import options as o


def encoders(
    name: Annotated[
        str | None,
        typer.Argument(help="Load this one and say what is inside; by default list the short names."),
    ] = None,
    classifier: Annotated[bool, typer.Option(help="Keep the classifier it was saved with.")] = False,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
) -> None:
    """List the encoders by their short names, or look into one.

    Examples:

        residual encoders                          # short names, and the forms of all others

        residual encoders picto                    # one encoder, looked into

        residual encoders hf:FOLDER --json it.json
    """
    from residual.cli.console import check_outputs, json_of, out, write_result
    from residual.encoders.names import ALIASES, FORMS, encoder_name
    from residual.report import alias_rows, aliases_table, encoder_facts, facts_table
    from residual.report.layout import pairs_table

    check_outputs(overwrite, json_of(json, "encoders"))
    if name is None:
        out.print(aliases_table(ALIASES))
        out.print("\nThey stand for (licence of the weights, as far as known, in brackets):")
        out.print(
            pairs_table({name: f"{it.spec} ({it.licence or 'unknown'})" for name, it in ALIASES.items()})
        )
        out.print("\nAny other, from a folder, a file of safetensors or the hub:")
        out.print(pairs_table(FORMS))
        result = alias_rows(ALIASES)
    else:
        encoder_name(name)  # before what takes its time to import
        from residual.encoders import load_encoder

        result = encoder_facts(load_encoder(name, device="cpu", classifier=classifier))
        out.print(facts_table(result))
    write_result(json, result)
