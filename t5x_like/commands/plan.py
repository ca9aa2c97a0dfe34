"""`t5x_like plan`: what a configuration takes on a mesh, before it runs, on chips that need not be here."""

from t5x_like.commands import options as shared

LEFT_OPEN = ("model_dir", "steps")


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("plan", "Compiles a configuration for a mesh and says what it takes. Needs no data.")
    shared.add_config_options(parser)
    parser.add_argument("--num_cpu_devices", type=int, metavar="N", help="simulate N devices on the processor")
    parser.add_argument(
        "--topology", metavar="NAME", help="TPU chips that need not be here: v5e:16x16, v5p:8x8x8, v6e:8x8"
    )
    parser.add_argument("--num_slices", type=int, default=1, metavar="N", help="so many slices of this topology")
    parser.add_argument("--device", metavar="KIND", help="H100, H200, A100, 'TPU v4', ...: times by this one's figures")
    parser.add_argument(
        "--search", action="store_true", help="compile every mesh, remat and number of rows; show the ones worth having"
    )
    parser.add_argument("--axes", default="data,fsdp,tensor", metavar="A,B", help="of the meshes that are searched")
    parser.add_argument("--rows", default="", metavar="N,N", help="rows of a batch to search; default: the config's")
    parser.add_argument("--report", metavar="FILE.html", help="the search as a page with a picture")
    options = shared.parse(parser, arguments)
    if not options.gin_file:
        raise ValueError("plan needs a configuration: --gin_file=configs/runs/NAME.gin")

    import jax

    if options.num_cpu_devices:
        jax.config.update("jax_num_cpu_devices", options.num_cpu_devices)

    from rich.console import Console

    from t5x_like.planning import plan, roofline

    if options.num_slices != 1 and not options.topology:
        raise ValueError(
            f"--num_slices={options.num_slices} says how many slices of what: give --topology, or leave it"
        )
    devices = plan.topology_devices(options.topology, options.num_slices) if options.topology else jax.devices()
    kind = options.device or devices[0].device_kind
    device = roofline.device_named(kind)
    if options.device and device is None:
        raise ValueError(f"--device={options.device}: figures are known of {', '.join(roofline.DEVICES)}")
    console = Console()
    if options.search:
        from t5x_like.commands import plan_search

        if device is None:
            raise ValueError(
                f"--search needs the figures of a device: give --device, one of {', '.join(roofline.DEVICES)}"
            )
        plan_search.search(console, options, run_of, devices, kind, device)
        return
    run = run_of(options)
    report = plan.plan(run, devices)
    kept = activations_of(run, devices, report)
    show(console if console.is_terminal else Console(width=120), report, kept, kind, device)


def activations_of(run: dict, devices: list, report) -> int | None:
    """None where other rows, which tell them apart, do not fit on a device or do not divide."""
    from t5x_like.planning import activations

    try:
        return activations.bytes_of(run, devices, report)
    except ValueError:
        return None


def run_of(options) -> dict:
    """The arguments of `train`, its defaults too. A folder and a data path may be left open."""
    import inspect

    from t5x_like import configs
    from t5x_like.configurables import CONFIGURABLES

    train = CONFIGURABLES["train"]
    table = {**CONFIGURABLES, "train": shared.arguments_of(train)}
    where = {"root": "train", "search_paths": shared.search_paths(options)}
    left = configs.left_open(table, options.gin_file, options.overrides, **where)
    others = [f"--gin.{key}='...'" for key in left if not key.startswith("train.")]
    supplied = tuple(key.removeprefix("train.") for key in left if key.startswith("train."))
    if missing := sorted(set(supplied) - set(LEFT_OPEN)):
        raise ValueError(f"the configuration leaves train.{missing[0]} open: give it in a file or as {missing[0]}=...")
    overrides = [*options.overrides, *others]
    names = (*supplied, *shared.SUPPLIED_TO_TRAIN)
    made = configs.resolve(table, options.gin_file, overrides, supplied=names, **where).call(**dict.fromkeys(supplied))
    defaults = {name: p.default for name, p in inspect.signature(train).parameters.items() if p.default is not p.empty}
    return {**defaults, **made}


def show(console, report, activations: int | None, kind: str, device) -> None:
    from rich.table import Table

    from t5x_like.partitioning.placement import human_bytes
    from t5x_like.train.summary import as_table

    total = sum(report.groups.values())
    axes = " x ".join(f"{axis} {size}" for axis, size in report.mesh.shape.items() if size > 1) or "one device"
    held = {
        "parameters": report.params_bytes,
        "optimizer": report.optimizer_bytes,
        **({"optimizer in host memory": report.host_bytes} if report.host_bytes else {}),
        "temporaries": report.temporaries,
        "peak": report.peak,
    }
    fixed = f"gradients {human_bytes(report.gradients_bytes)} in float32"
    if activations is not None:
        rest = human_bytes(report.temporaries - activations)
        fixed = f"activations {human_bytes(activations)} (grow with rows); {rest} do not, of which {fixed}"
    a_token = [f"{work / report.tokens:.4g}" for work in report.work]
    lines = {
        "devices": f"{report.mesh.size} x {kind}",
        "mesh": axes,
        "parameters": f"{total:,}",
        **{f"  {name}": f"{number:,} ({number / total:.1%})" for name, number in report.groups.items()},
        "per device": ", ".join(f"{name} {human_bytes(size)}" for name, size in held.items()),
        "of temporaries": fixed,
        "compiled in": f"{report.compile_seconds:.1f} s",
        "tokens a step": f"{report.tokens:,}",
        "operations a token": f"{a_token[0]} full, {a_token[1]} causal",
    }
    if device is not None:
        lines |= predicted(report, device)
        lines["fits"] = "yes" if report.peak < device.memory else f"NO: {human_bytes(int(device.memory))} are there"
    console.print(as_table(lines, "Plan"))
    table = Table("collective", "along", "bytes", "times", "together", title="Sent in a step, by device")
    for one in report.collectives[:20]:
        sizes = human_bytes(one.bytes), f"{one.times:,}", human_bytes(one.bytes * one.times)
        table.add_row(one.kind, one.axes, *sizes)
    console.print(table if report.collectives else "nothing is sent between devices")


def predicted(report, device) -> dict[str, str]:
    seconds = report.seconds(device)
    work = report.work.causal / report.mesh.size / device.flops
    parts = ", ".join(f"{name} {value * 1e3:.1f}" for name, value in seconds._asdict().items())
    least, most = seconds.least * 1e3, seconds.most * 1e3
    return {
        "step at best": f"{least:.1f} ms if all overlaps, {most:.1f} ms if nothing does ({parts})",
        "causal MFU at best": f"{work / seconds.most:.1%} to {work / seconds.least:.1%}",
    }
