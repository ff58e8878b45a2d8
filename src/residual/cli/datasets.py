"""`residual datasets`: what can be loaded, and what is inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def datasets(
    name: Annotated[
        str | None,
        typer.Argument(help="Load this one and say what is inside; by default list the names."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this split: train, val or test. [default: all three]")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Write down what the split's samples and images are, for others to compare."),
    ] = None,
    image_column: o.ImageColumn = None,
    label_column: o.LabelColumn = None,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
) -> None:
    """List the datasets by name, or look into one.

    Examples:

        residual datasets                          # all names, and the forms of all others

        residual datasets letters                  # one dataset, looked into

        residual datasets folder:pictures --json it.json

        residual datasets hf:me/birds --image-column photo --label-column species

        residual datasets dtd --split test --manifest dtd-test.json
    """
    from residual.cli.console import check_outputs, json_of, note, out, stages, write_result
    from residual.data import SPLITS, Manifest, load_dataset
    from residual.data.layout import listed_once
    from residual.data.load import FORMS
    from residual.errors import ResidualError
    from residual.outputs import Output
    from residual.products import MANIFEST
    from residual.progress import named
    from residual.report import dataset_facts, dataset_facts_table, dataset_rows, datasets_table
    from residual.report.layout import pairs_table

    if manifest and not (name and split):
        raise ResidualError("A manifest is of one split: name the dataset and its --split.")
    if name is None and (split or image_column or label_column):
        raise ResidualError("--split and the columns are for one dataset: name it.")
    check_outputs(overwrite, json_of(json, "datasets"), Output("--manifest", manifest, MANIFEST))
    if name is None:
        result = dataset_rows()
        out.print(datasets_table(result))
        out.print("\nWhere they come from (licence, as far as known, in brackets):")
        out.print(pairs_table({row["name"]: f"{row['source']} ({row['licence']})" for row in result}))
        out.print("\nThose of the hub need the datasets library: pip install 'residual-vit[datasets]'.")
        out.print("'mnist' is the 5,000 digits that ship, 'mnist-full' all 70,000 of the hub.")
        out.print("\nAny other:")
        out.print(pairs_table({f"{kind}:{form.address}": form.about for kind, form in FORMS.items()}))
    else:
        wanted = SPLITS if split is None else (split,)
        with listed_once():
            loaded = {
                each: load_dataset(name, each, image_column=image_column, label_column=label_column)
                for each in wanted
            }
        result = dataset_facts(loaded)
        out.print(dataset_facts_table(result))
        for each in result["notes"]:
            out.print(each)
        if manifest and split:
            with stages() as show:
                written = Manifest.of(
                    loaded[split],
                    contents=True,
                    progress=named(show, f"{name}: read {split}"),
                )
            written.save(manifest, overwrite)
            result["splits"][split]["contents_checksum"] = written.contents_checksum
            note(f"The manifest of {len(written.sample_ids):,} images: {manifest}")
    write_result(json, result)
