"""`t5x_like evaluate`: held-out loss of checkpoints, beside the run or after it."""

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for(
        "evaluate", "Held-out loss and samples of a run's checkpoints. Never writes to checkpoints/."
    )
    parser.add_argument("model_dir", metavar="MODEL_DIR")
    parser.add_argument("--steps", default="latest", metavar="latest|all|N")
    parser.add_argument(
        "--watch", action="store_true", help="every new checkpoint as it appears, until the run's last step"
    )
    parser.add_argument("--split", default="validation", metavar="NAME")
    parser.add_argument("--max_batches", type=int, metavar="N", help="default: what the run itself measures")
    parser.add_argument("--samples", type=int, default=8, metavar="N", help="per task; 0 for none")
    shared.add_config_options(parser)
    shared.add_device_options(parser)
    options = shared.parse(parser, arguments)
    shared.start_devices(options)
    run = shared.open_run(options, options.model_dir)

    from t5x_like.evaluation import run as evaluation

    # The same rows as in the run, so that its curve and its result are one measurement.
    max_batches = run.arguments.get("eval_batches") if options.max_batches is None else options.max_batches
    settings = {"split": options.split, "max_batches": max_batches, "num_samples": options.samples}
    if not options.watch:
        evaluation.evaluate(run, steps=run.choose(options.steps), **settings)
        return
    for step in evaluation.watch(run, done_step=run.arguments["steps"]):
        evaluation.evaluate(run, steps=[step], **settings)
