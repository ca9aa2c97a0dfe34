"""`t5x_like tasks`: what is registered, and what it makes of its data."""

from rich.console import Console

from t5x_like.commands import options as shared
from t5x_like.commands import recipes
from t5x_like.tasks.held_stderr import held_stderr

WIDTH_OF_FILES = 160


def main(arguments: list[str]) -> int:
    parser = shared.parser_for("tasks", "The registered SeqIO tasks and mixtures.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|new|check")
    listing = actions.add_parser("list", help="every task and mixture")
    show = actions.add_parser("show", help="real examples: what is seen, hidden and predicted")
    check = actions.add_parser("check", help="lengths, bad records, speed, determinism, sentinels")
    for action in (show, check):
        action.add_argument("name")
        action.add_argument("--split", default="train", metavar="NAME")
        action.add_argument("--inputs", type=int, metavar="N", help="tokens of an encoder row")
        action.add_argument("--targets", type=int, metavar="N", help="tokens of a decoder row")
    show.add_argument("--n", type=int, default=3, metavar="N")
    show.add_argument("--seed", type=int, default=0, metavar="N")
    show.add_argument(
        "--objective", metavar="RECIPE", help="another than the task's: a name in configs/objectives, or a file"
    )
    check.add_argument("--documents", type=int, default=2000, metavar="N")
    new = actions.add_parser("new", help="write a task file over your data, about twenty lines")
    new.add_argument("name")
    new.add_argument("--from", dest="data", required=True, metavar="PATH")
    new.add_argument("--folder", default=".", metavar="DIR")
    new.add_argument("--tokenizer", metavar="FILE")
    new.add_argument("--field", action="append", metavar="NAME", help="text, or twice for inputs and targets")
    for action in (listing, show, check):
        shared.add_module_option(action)
    options = shared.parse(parser, arguments)
    return {"list": list_tasks, "show": show_task, "new": new_task, "check": check_task}[options.action](options)


def import_tasks(options) -> None:
    with held_stderr():
        from t5x_like.tasks import registry

    registry.import_modules(options.module or ["data_tasks"])


def console() -> Console:
    """Standard output; a pipe or file gets lines wide enough for the tables."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDTH_OF_FILES)


def lengths_of(options) -> dict[str, int] | None:
    given = {"inputs": options.inputs, "targets": options.targets}
    return {name: length for name, length in given.items() if length} or None


def list_tasks(options) -> int:
    import_tasks(options)
    from t5x_like.tasks import show

    show.list_tasks(console())
    return 0


def show_task(options) -> int:
    import_tasks(options)
    from t5x_like.tasks import show

    settings = {"num_examples": options.n, "lengths": lengths_of(options), "split": options.split, "seed": options.seed}
    if options.objective:
        recipe = recipes.pipeline_of(options.objective)
        settings |= {"objective": recipe.objective, "lengths": settings["lengths"] or recipes.short(recipe.lengths)}
    show.show(options.name, console(), **settings)
    return 0


def check_task(options) -> int:
    import_tasks(options)
    from t5x_like.tasks import check

    reports = check.check(
        options.name, num_documents=options.documents, lengths=lengths_of(options), split=options.split
    )
    for report in reports:
        print("\n".join([*report.lines, *(f"problem: {problem}" for problem in report.problems)]))
    return int(any(report.problems for report in reports))


def new_task(options) -> int:
    from t5x_like.tasks import new

    fields = tuple(options.field or ["text"])
    file = new.new(options.name, options.data, folder=options.folder, tokenizer=options.tokenizer, fields=fields)
    print(f"wrote {file}; next: t5x_like tasks show {options.name} --module={file}")
    return 0
