"""What holds for all tests: 8 fake CPU devices, no silent rank promotion, reproducible hypothesis runs."""

import importlib.metadata
import json
import os
import pathlib
import re

# Set before JAX is imported, and in the environment, so that commands which tests start see the same devices.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# The older way of saying it must not contradict.
os.environ["XLA_FLAGS"] = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
# Tests draw figures without a display.
os.environ["MPLBACKEND"] = "agg"
# Most tests ask what is computed, not how fast, and code that isn't optimised compiles in a fraction of the time. The
# fixture `optimised` is for the others; `JAX_DISABLE_MOST_OPTIMIZATIONS=false make test` optimises in all of them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# XLA's emitters of fused loops on CPU take up to 40 % of the time to compile. jaxlib 0.12 refuses the flag.
if re.match(r"0\.([7-9]|10)\.", importlib.metadata.version("jaxlib")) and "emitters" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Many tests, and the commands they start, compile the same step: once is enough. The results are the same bits. Small
# programs are kept, too: a run has dozens of them, and to read one takes a fraction of compiling it. All workers of
# pytest-xdist share the directory. One may read half of an entry that another one writes: then JAX compiles anew
# (tests/test_compiled.py), and pyproject.toml silences its warning.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import collections
import gc
import signal
from collections.abc import Iterator

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
assert jax.device_count() == 8, f"tests need 8 fake CPU devices, found {jax.devices()}: was JAX initialised before?"

# The same examples on every run. `pytest --hypothesis-profile explore` looks further.
hypothesis.settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("explore", derandomize=False, deadline=None, max_examples=2000)
hypothesis.settings.load_profile("house")


# ------------------------------------------------------------------ which files take the time

CPU, CPU_SECONDS = pytest.StashKey[float](), "cpu_seconds"


def cpu_seconds() -> float:
    """What this process has computed for, and the commands that it waited for. Neighbours don't change it."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[CPU] = cpu_seconds()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> None:
    if call.when == "teardown" and CPU in item.stash:
        item.user_properties.append((CPU_SECONDS, cpu_seconds() - item.stash[CPU]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the CPU seconds of the slowest test files; `--durations=0` prints all files."""
    by_file: dict[str, float] = collections.defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                by_file[report.nodeid.partition("::")[0]] += dict(report.user_properties).get(CPU_SECONDS, 0.0)
    shown = sorted(by_file.items(), key=lambda entry: -entry[1])
    terminalreporter.section(f"CPU seconds: {sum(by_file.values()):.0f}")
    for name, seconds in shown[: None if terminalreporter.config.getoption("durations") == 0 else 10]:
        terminalreporter.write_line(f"{seconds:6.1f} {name}")


# ------------------------------------------------------------------ what tests share


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """For tests of what the compiler makes, and for runs as users have them; commands that they start optimise, too."""
    quick = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"].lower() not in ("false", "0", "no", "off", "")
    jax.config.update("jax_disable_most_optimizations", False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "false")
        yield
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Frees compiled programs when there are many: each takes memory maps, and Linux gives a process 65,530 of them."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 25_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory of this test session that all workers of pytest-xdist see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def small_data(shared: pathlib.Path) -> pathlib.Path:
    """Where the small data set of the demo lies; `prepare` builds it once, and who comes meanwhile waits."""
    return shared / "spoken_digits"


@pytest.fixture(scope="module")
def steps_kept() -> Iterator[None]:
    """All runs of one configuration in this process use the same compiled train step.

    That another process makes the same step of the same configuration is shown by the tests that start processes.
    """
    import omnijax.train
    from omnijax.config import Config, to_dict

    made: dict[tuple[str, object], object] = {}
    make = omnijax.train.make_step

    def kept(config: Config, model: object, mesh: object) -> object:
        key = (json.dumps(to_dict(config)), mesh)
        if key not in made:
            made[key] = make(config, model, mesh)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omnijax.train, "make_step", kept)
        yield


@pytest.fixture(scope="module")
def one_memory_size() -> Iterator[None]:
    """Samplers start with the memory of the longest document, so that they compile one program and not up to eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnijax.sample.sampler.BLOCKS", 1)
        yield


@pytest.fixture(scope="module")
def interruptible() -> Iterator[None]:
    """Restores the default handlers of SIGINT and SIGHUP: background jobs ignore the first, `nohup` the second."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
