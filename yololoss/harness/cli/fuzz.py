"""``yololoss fuzz``: a session of random cases."""

import json
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss.harness.cli import options
from yololoss.harness.cli.view import View
from yololoss.harness.errors import UsageError

if TYPE_CHECKING:
    from hypothesis.database import ExampleDatabase

    from yololoss.harness.engine.cluster import Cluster
    from yololoss.harness.engine.session import Session
    from yololoss.harness.engine.session_summary import Summary


@click.command()
@click.argument("loss", required=False)
@click.option(
    "--for",
    "seconds",
    type=options.duration,
    metavar="TIME",
    help="How long the session runs, such as 90s or 1h30m.  [default: 10m without --cases and --until-risk]",
)
@click.option("--cases", type=click.IntRange(min=1), metavar="N", help="How many cases it judges in total.")
@click.option(
    "--until-risk",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="RISK",
    help="End when the next case shows a new kind of finding with at most this probability, such as 1e-4.",
)
@options.laws
@options.one_device
@options.dialect
@options.long_workers
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run workers on the nodes of this Ray cluster: host:port of its head, or auto. Without --workers, one for "
    "each GPU or CPU of the cluster.",
)
@click.option(
    "--out", type=options.FOLDER, default=Path(".yololoss/fuzz"), show_default=True, help="The session's folder."
)
@click.option("--resume", is_flag=True, help="Continue the session in that folder: its loss, its time, its counts.")
@options.corpus
@click.option(
    "--database",
    metavar="PLACE",
    multiple=True,
    help="A Hypothesis database as a cache of findings: a folder, redis://HOST:PORT/N, or github:OWNER/REPOSITORY (its "
    "artifacts, read-only). May be repeated.",
)
@click.option("--seed", type=click.IntRange(min=1, max=2**32), help="The session's seed.  [default: a random one]")
@options.limit
@options.memory
@click.option("-v", "--verbose", is_flag=True, help="Show every finding in full, not only the first.")
@options.as_json
def fuzz(
    seconds: float | None,
    laws: tuple[str, ...],
    out: Path,
    resume: bool,
    corpus: Path | None,
    database: tuple[str, ...],
    ray: str | None,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Check all laws on random cases, for as long as you like.

    Each case is judged by all laws about it. A loss that crashes, hangs or uses too much memory ends only one process.
    Its case is found, minimised and saved like any other. --resume continues a session, whatever ended it.

    \b
    Examples:
      yololoss fuzz --for 10m
      yololoss fuzz utils/loss.py:ComputeLoss --for 2h --device cuda --out nightly
      yololoss fuzz --resume --out nightly

    Exit status: 0 nothing was found; 1 something was found; 2 the command could not run.
    """
    from yololoss.harness.cases.databases import open_database  # noqa: PLC0415
    from yololoss.harness.engine.cluster import Cluster  # noqa: PLC0415

    cache = open_database(database)
    cluster = Cluster(ray) if ray else None
    if resume:
        session = _resumed(out, seconds, cluster, given)
    else:
        session = _begun(out, seconds, laws, corpus, cache, cluster, given)
    summary = _run(session, cluster, cache, quiet=as_json)
    if as_json:
        click.echo(json.dumps(summary.model_dump(mode="json"), indent=1))
    else:
        _tell(summary, out, verbose=verbose)
    sys.exit(summary.verdict.status)


def _run(session: "Session", cluster: "Cluster | None", cache: "ExampleDatabase | None", *, quiet: bool) -> "Summary":
    """Run the session to its end, save its findings in the cache, and write its summary into its folder."""
    from yololoss.harness.cases.databases import save  # noqa: PLC0415
    from yololoss.harness.cases.vectors import read_vectors  # noqa: PLC0415
    from yololoss.harness.engine.choices import by_choice  # noqa: PLC0415
    from yololoss.harness.engine.held import held_to  # noqa: PLC0415
    from yololoss.harness.engine.session_summary import summarise, write_summary  # noqa: PLC0415
    from yololoss.harness.findings.about import about  # noqa: PLC0415

    chosen = session.settings
    what = about(session.subject, chosen.device, shlex.join(["yololoss", *sys.argv[1:]]))
    title = f"session of seed {chosen.seed} on {chosen.loss}, {chosen.workers} worker(s), in {session.folder}"
    with View(title, quiet=quiet) as view, cluster.joined() if cluster else nullcontext():
        session.run(view.show)
    summary = summarise(session, what)
    if summary.verdict.faults and chosen.named and chosen.loss != session.subject.family.bundled:
        named = options.settings(loss=chosen.loss, device=chosen.device, dialect=chosen.dialect)
        found = by_choice(summary.verdict.faults, held_to(named, session.subject), chosen)
        summary = summary.model_copy(update={"verdict": summary.verdict.model_copy(update={"faults": found})})
    if cache is not None:
        save(cache, (v for f in summary.verdict.faults for v in read_vectors(Path(f.path)).vectors))
    write_summary(summary, session.folder)
    return summary


def _begun(
    out: Path,
    seconds: float | None,
    laws: tuple[str, ...],
    corpus: Path | None,
    cache: "ExampleDatabase | None",
    cluster: "Cluster | None",
    given: dict[str, Any],
) -> "Session":
    from yololoss.harness.cases.databases import fetch  # noqa: PLC0415
    from yololoss.harness.cases.vectors import read_corpus  # noqa: PLC0415
    from yololoss.harness.config import read_config  # noqa: PLC0415
    from yololoss.harness.engine.handles import LocalWorker  # noqa: PLC0415
    from yololoss.harness.engine.held import found_if_unnamed  # noqa: PLC0415
    from yololoss.harness.engine.judge import MEMORY, usual_limit  # noqa: PLC0415
    from yololoss.harness.engine.session import begin  # noqa: PLC0415
    from yololoss.harness.engine.state import Settings  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    named = {name: given[name] for name in ("loss", "device", "dialect")}
    chosen = options.settings(**named, corpus=None if corpus is None else str(corpus))
    subject = options.under_test(chosen)
    held = found_if_unnamed(chosen, subject)
    for line in held.about:
        click.echo(line, err=True)
    if held.looked:
        named["dialect"] = held.dialect
    known = [] if chosen.corpus is None else list(read_corpus(Path(chosen.corpus)).values())
    if cache is not None:
        known += fetch(cache, subject.family.name, find_laws(subject.family, laws))
    first = dict.fromkeys(vector.model_dump_json() for vector in known)
    room = options.usual_workers if cluster is None else cluster.room
    settings = Settings(
        loss=chosen.loss,
        device=chosen.device,
        dialect=held.dialect,
        named=chosen.dialect is not None,
        laws=laws,
        waived=tuple(waiver.law for waiver in read_config(Path.cwd()).waivers),
        workers=given["workers"] or room(chosen.device),
        memory=given["memory"] or MEMORY,
        limit=given["limit"] or usual_limit(chosen.device),
        seed=given["seed"] or 0,
        seconds=seconds or (None if given["cases"] or given["until_risk"] else 600.0),
        cases=given["cases"],
        until_risk=given["until_risk"],
        options={**named, **{name: given[name] and f"{given[name]:g}" for name in ("memory", "limit")}},
    )
    return begin(out, settings, tuple(first), LocalWorker if cluster is None else cluster.start_worker)


def _resumed(out: Path, seconds: float | None, cluster: "Cluster | None", given: dict[str, Any]) -> "Session":
    from yololoss.harness.engine.handles import LocalWorker  # noqa: PLC0415
    from yololoss.harness.engine.session import resume  # noqa: PLC0415

    fixed = [name for name in ("loss", "device", "dialect", "seed") if given[name]]
    if fixed:
        raise UsageError(f"--resume keeps the session's own {' and '.join(fixed)}; for another, give another --out")
    changed = {name: given[name] for name in ("workers", "memory", "limit", "cases", "until_risk")}
    return resume(out, LocalWorker if cluster is None else cluster.start_worker, seconds=seconds, **changed)


def _tell(summary: "Summary", out: Path, *, verbose: bool) -> None:
    from yololoss.harness.engine.session_summary import clock  # noqa: PLC0415
    from yololoss.harness.findings.verdict import headline  # noqa: PLC0415

    verdict = summary.verdict
    shown = verdict.faults[: None if verbose else 1]  # the first says most: it is about the earliest step
    for finding in shown:
        options.say(f"{finding}\n  seen       {summary.seen[finding.path]} times\n")
    for fault in verdict.faults[len(shown) :]:
        what = f"another fault: {fault.law}: {fault.choice or fault.title}"
        options.say(f"{what}, {summary.seen[fault.path]} times\n  replay     {fault.replay}")
    thin = [name for name, count in summary.regions.items() if count == 0]
    options.say(f"{summary.cases} cases, {summary.judgements} judgements, {summary.restarts} worker restarts")
    if summary.unexplained:
        options.say(f"processes killed from outside (no fault of the loss): {summary.unexplained}")
    if summary.risk is not None:
        options.say(f"risk that the next case shows a new kind of finding: {summary.risk}")
    if thin:
        options.say(f"regions without a case: {', '.join(thin)}")
    options.say(f"seed {summary.seed}; summary and report: {out / 'summary.json'}, {out / 'report.html'}")
    if verdict.problem:
        raise UsageError(verdict.problem)
    style = "bold red" if verdict.status else "bold green"
    options.say(f"{headline(verdict)}, {clock(summary.seconds)}", style)
