"""Results as tables, figures and pages, made of plain values: frames, summaries, adapters, descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residual.libraries import lazily

if TYPE_CHECKING:
    from residual.report.accuracies import (
        accuracies_latex,
        accuracies_markdown,
        accuracy_frame,
        radar_figure,
        weights_figure,
    )
    from residual.report.catalogue import (
        alias_rows,
        aliases_table,
        dataset_facts,
        dataset_facts_table,
        dataset_rows,
        datasets_table,
        encoder_facts,
        facts_table,
    )
    from residual.report.changes import Change, Changes
    from residual.report.figures import (
        analysis_figures,
        blocks_figure,
        check_matplotlib,
        geometry_figure,
        grid_figure,
        layers_figure,
        save_figure,
        save_figures,
    )
    from residual.report.geometry import datasets_latex, datasets_markdown, layers_table, records
    from residual.report.heads_page import DescribedHeads, heads_table, write_heads_page
    from residual.report.lambdas import components_table, lambdas_figure
    from residual.report.maps import MappedPicture, maps_figure, maps_table
    from residual.report.pages import write_suite_page
    from residual.report.run_page import write_run_page
    from residual.report.scoreboards import (
        ablations_figure,
        halves_note,
        matrix_figure,
        scoreboard_figure,
        scoreboard_figures,
        scoreboard_table,
    )
    from residual.report.sentences import intervals_note, parts_note, sentence, starts_kept
    from residual.report.tables import (
        METHOD_NAMES,
        evaluation_table,
        run_table,
        suite_markdown,
        suite_table,
    )

__all__ = [
    "METHOD_NAMES",
    "Change",
    "Changes",
    "DescribedHeads",
    "MappedPicture",
    "ablations_figure",
    "accuracies_latex",
    "accuracies_markdown",
    "accuracy_frame",
    "alias_rows",
    "aliases_table",
    "analysis_figures",
    "blocks_figure",
    "check_matplotlib",
    "components_table",
    "dataset_facts",
    "dataset_facts_table",
    "dataset_rows",
    "datasets_latex",
    "datasets_markdown",
    "datasets_table",
    "encoder_facts",
    "evaluation_table",
    "facts_table",
    "geometry_figure",
    "grid_figure",
    "halves_note",
    "heads_table",
    "intervals_note",
    "lambdas_figure",
    "layers_figure",
    "layers_table",
    "maps_figure",
    "maps_table",
    "matrix_figure",
    "parts_note",
    "radar_figure",
    "records",
    "run_table",
    "save_figure",
    "save_figures",
    "scoreboard_figure",
    "scoreboard_figures",
    "scoreboard_table",
    "sentence",
    "starts_kept",
    "suite_markdown",
    "suite_table",
    "weights_figure",
    "write_heads_page",
    "write_run_page",
    "write_suite_page",
]

# What lists names needs no torch, and stands first.
_MODULES = (
    "catalogue",
    "tables",
    "sentences",
    "accuracies",
    "changes",
    "figures",
    "geometry",
    "heads_page",
    "lambdas",
    "maps",
    "pages",
    "run_page",
)
__getattr__ = lazily(__name__, (*_MODULES, "scoreboards"), __all__)
