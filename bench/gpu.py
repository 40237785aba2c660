"""All that needs a GPU, in parts that fit a few minutes each and go on where the last one stopped.

    python bench/gpu.py --data caltech-101 --init resnet50.safetensors --out results --minutes 9

Parts: the tests marked gpu; throughput against timm and torch; the paper's study at 224 pixels, as many seeds as fit.
Runs from a checkout with torch, torchvision, timm and scikit-learn, without installing anything. Results are a few
small files; --from names those of earlier calls where --out is empty. `--unpack STUDY` makes a study folder of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.budget import Budget
from bench.driver import end
from bench.gpu_study import DONE, continue_study, pack, read_done, unpack

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("tests", "throughput", "study")
SPARE_S = 20.0
"""Seconds kept for packing up."""
SHARES = {"tests": 0.3, "throughput": 0.5, "study": 1.0}
"""Most of what is left that a part may take while others follow."""


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    found = argparse.ArgumentParser(prog="bench/gpu.py", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--data", type=Path, help="a folder of class folders, such as Caltech-101")
    found.add_argument("--init", type=Path, help="ImageNet weights, with torchvision's keys")
    found.add_argument("--out", type=Path, required=True, help="folder for results")
    found.add_argument("--from", dest="earlier", type=Path, nargs="*", default=[], help="results of earlier calls")
    found.add_argument("--minutes", type=float, default=9.0, help="for this call [9]")
    found.add_argument("--part", choices=(*PARTS, "all"), default="all")
    found.add_argument("--scratch", type=Path, help="folder for decoded images and the like [a temporary place]")
    found.add_argument("--unpack", type=Path, metavar="STUDY", help="only: make a study folder of the archives")
    found.add_argument("--device", default="cuda", help="cuda, or cpu to try the logic [cuda]")
    study = found.add_argument_group("study")
    study.add_argument("--study", default="paper", help="a preset or a TOML file [paper]")
    study.add_argument("--seeds", type=int, default=5, help="most seeds [5]")
    study.add_argument("--jobs", type=int, default=4, help="runs at a time [4]")
    study.add_argument("--size", type=int, default=224, help="pixels [224]")
    study.add_argument("--epochs", type=int, help="of each run [as the study says]")
    speed = found.add_argument_group("throughput")
    speed.add_argument("--sizes", type=int, nargs="+", default=[224, 128], help="pixels [224 128]")
    speed.add_argument("--steps", type=int, default=100, help="most steps of one measurement [100]")
    speed.add_argument("--repeats", type=int, default=3, help="rounds in turn [3]")
    speed.add_argument("--tasks", nargs="+", default=["train", "eval"], help="as bench/throughput.py [train eval]")
    speed.add_argument("--no-tune", action="store_true", help="take each contender's first flags, which saves trials")
    speed.add_argument("--batch", type=int, default=64, help="images a step [64]")
    speed.add_argument(
        "--only", nargs="+", default=["ours", "timm", "timm-compile", "torch-amp", "torch-tuned"], help="contenders"
    )
    return found


def make_importable(scratch: Path) -> None:
    """Lets this process and its children import the package from `src`, where it is not installed.

    It then has no metadata, whose version runs record, and tomli-w may be absent: both are put beside it.
    """
    shims = scratch / "shims"
    shims.mkdir(parents=True, exist_ok=True)
    paths = [str(ROOT)]
    if importlib.util.find_spec("bagoftricks") is None:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        about = shims / f"bagoftricks-{version}.dist-info"
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: bagoftricks\nVersion: {version}\n", encoding="utf-8"
        )
        paths += [str(ROOT / "src"), str(shims)]
    if importlib.util.find_spec("tomli_w") is None:
        (shims / "tomli_w.py").write_text("from bench.toml_writer import dumps\n", encoding="utf-8")
        paths += [str(shims)]
    sys.path[:0] = [path for path in dict.fromkeys(paths) if path not in sys.path]
    known = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([*dict.fromkeys(paths), *filter(None, [known])])


def newest(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns a JSON file of this folder or of an earlier call's; empty where there is none."""
    for folder in (options.out, *reversed(options.earlier)):
        if (folder / name).is_file():
            found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            return found
    return {}


def run_tests(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Runs the tests marked gpu, unless they passed before on the same code; keeps the end of what they print."""
    files = marked(ROOT / "tests" / "gpu")
    if not files:
        return {"status": 5, "outcome": "no test is marked gpu", "seconds": 0.0, "last_line": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    began = time.monotonic()
    said = options.out / "tests.txt"
    with said.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            status = 124
        finally:
            end(process)  # with what its tests have started, which would go on computing
    text = said.read_text(encoding="utf-8", errors="replace") + ("\nstopped: out of time" if status == 124 else "")
    said.write_text(text[-20_000:], encoding="utf-8")
    words = {0: "passed", 5: "no test is marked gpu", 124: "out of time"}
    found = {"status": status, "outcome": words.get(status, "failed"), "seconds": time.monotonic() - began}
    found["last_line"] = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return found


def marked(folder: Path) -> list[Path]:
    """Returns the test files that mark tests gpu: others may import what is not installed here."""
    return [path for path in sorted(folder.rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]


def run_throughput(options: argparse.Namespace, scratch: Path, seconds: float) -> dict[str, Any]:
    """Measures what `throughput.json` lacks."""
    from bagoftricks.errors import RunError
    from bench.throughput import main as throughput

    path = options.out / "throughput.json"
    if not path.exists() and (earlier := newest(path.name, options)):
        path.write_text(json.dumps(earlier), encoding="utf-8")
    data = ["--data", str(options.data)] if options.data else ["--synthetic-photos"]
    status = throughput(
        [
            *data,
            *("--size", *map(str, options.sizes)),
            *("--steps", str(options.steps), "--repeats", str(options.repeats), "--batch", str(options.batch)),
            *("--only", *options.only),
            *("--device", options.device, "--work", str(scratch / "work"), "--out", str(path)),
            *("--tasks", *options.tasks, *(["--no-tune"] if options.no_tune else [])),
            *("--max-minutes", str(seconds / 60)),
        ]
    )
    if status:
        raise RunError(f"throughput: ended with {status}; what it said stands above")
    done = newest(path.name, options)
    return {"status": status, "complete": bool(done.get("complete")), "bars": done.get("bars", [])}


def run_study(options: argparse.Namespace, scratch: Path, seconds: float) -> dict[str, Any]:
    """Executes what fits of the study, and packs what is new."""
    from bagoftricks.files import write_json
    from bagoftricks.studies.study_file import load_study

    folders = [options.out, *options.earlier]
    done, folder = read_done(folders), scratch / "study"
    changes: dict[str, Any] = {"input.size": options.size}
    if options.init:
        changes["init"] = str(options.init.resolve())
    if options.epochs:
        changes["epochs"] = options.epochs
    study = load_study(options.study).adapted(changes, options.seeds)
    found = continue_study(
        study,
        options.data,
        folder,
        done,
        Budget(max(1.0, seconds)),
        device=options.device,
        jobs=options.jobs,
        images=scratch / "decoded",
    )
    archives = pack(folder, folders, done)
    write_json(options.out / DONE, {"ids": found.pop("ids")})
    return {**found, "archives": [path.name for path in archives], "complete": found["done"] == found["runs"]}


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that are not complete, one after another."""
    options = parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.unpack:
        archives = [p for folder in (*options.earlier, options.out) for p in folder.glob("study-*.tar.gz")]
        print(f"{options.unpack}: {unpack(archives, options.unpack)} runs")
        return 0
    scratch = (options.scratch or Path(tempfile.gettempdir()) / "bagoftricks-gpu").resolve()
    make_importable(scratch)
    os.environ.setdefault("BAGOFTRICKS_CACHE", str(scratch / "cache"))
    from bagoftricks.errors import RunError, UserError
    from bagoftricks.files import write_json

    budget = Budget(60 * options.minutes - SPARE_S)
    state = newest("gpu.json", options)
    wanted = [part for part in PARTS if options.part in ("all", part)]
    pending = [part for part in wanted if options.part == part or not is_complete(part, state)]
    for part in pending:
        share = SHARES[part] if part != pending[-1] else 1.0
        seconds = budget.left * share
        if seconds < 5:
            break
        print(f"== {part}: {seconds:.0f} s", file=sys.stderr, flush=True)
        try:
            if part == "tests":
                state[part] = run_tests(options, seconds)
            elif part == "throughput":
                state[part] = run_throughput(options, scratch, seconds)
            elif options.data is None:
                raise UserError("the study needs --data")
            else:
                state[part] = run_study(options, scratch, seconds)
        except (UserError, RunError) as error:
            state[part] = {"error": str(error)}
        write_json(options.out / "gpu.json", state)
    print(json.dumps(state, indent=2))
    left = [part for part in PARTS if not is_complete(part, state)]
    print(f"Left: {', '.join(left) or 'nothing'}", file=sys.stderr)
    return 1 if any("error" in state.get(part, {}) for part in pending) else 0


def is_complete(part: str, state: dict[str, Any]) -> bool:
    """Whether an earlier call has done all of a part."""
    found = state.get(part, {})
    return found.get("status") == 0 if part == "tests" else bool(found.get("complete"))


if __name__ == "__main__":
    sys.exit(main())
