"""`t5x_like curate`: raw files to clean, deduplicated shards, by a recipe."""

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("curate", "Runs a recipe of steps over raw text and writes shuffled shards.")
    shared.add_config_options(parser)
    parser.add_argument(
        "--sample",
        metavar="PART",
        help="try the recipe on this part of the documents, 0.01 say, into OUTPUT_DIR-sample",
    )
    options = shared.parse(parser, arguments)
    if not options.gin_file:
        raise ValueError("curate needs --gin_file=RECIPE, e.g. configs/corpora/web.gin")

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Table

    from t5x_like import configs
    from t5x_like.commands.run_model import RunModel
    from t5x_like.corpus import curate
    from t5x_like.corpus.table import CORPUS

    resolved = configs.resolve(
        CORPUS | {"RunModel": RunModel},
        options.gin_file,
        [*options.overrides, *([f"sample={options.sample}"] if options.sample else [])],
        root="curate",
        search_paths=shared.search_paths(options),
        supplied=("progress", "recipe"),
        allow_imports=options.allow_imports,
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("curate")

        def progress(stage: int, stages: int, done: int, files: int) -> None:
            bar.update(task, description=f"stage {stage + 1} of {stages}, files", completed=done, total=files)

        manifest = resolved.call(progress=progress, recipe=resolved.text)
    table = Table("what happened", "documents", title="Counts")
    for name, number in curate.counts_by_step(manifest["counts"]):
        table.add_row(name, f"{number:,}")
    mix = Table("source", "documents", "characters", "epochs", title="What is left")
    for name, told in manifest["sources"].items():
        mix.add_row(name, f"{told['documents']:,}", f"{told['characters']:,}", f"{told['epochs']:.2f}")
    console.print(table, mix)
    if manifest["sample"] < 1:
        print(told_forecast(manifest["forecast"]))
    print(f"{manifest['written']:,} documents in {len(manifest['shards'])} shards; report.html shows what happened")


def told_forecast(forecast: dict[str, float]) -> str:
    """One sentence, in units for a person."""
    return (
        f"All documents will need about {forecast['CPU seconds'] / 60:,.1f} minutes of one core and "
        f"{forecast['peak bytes'] / 1e9:,.2f} GB in the largest process, and leave about {forecast['documents']:,.0f} "
        f"documents, {forecast['characters'] / 1e6:,.1f} million characters"
    )
