"""Apache Beam: the same work on many machines. An extra: `pip install 'omnijax[beam]'`."""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import Any

from omnijax import errors

# `DirectRunner` may pass a pipeline on to a runner that it fetches first; this one is in the wheel.
DEFAULTS = ("runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner", "default_sdk_harness_log_level=ERROR")


class Beam:
    """Where pipelines run.

    Args:
        options: of Beam's pipelines, without their dashes, as in `runner=DataflowRunner` or `direct_num_workers=3`; on
            this machine by default.

    Raises:
        PlatformError: Beam isn't installed.
        ConfigError: an option that Beam doesn't have, or that can't be trusted.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        if importlib.util.find_spec("apache_beam") is None:
            rule, fix = "Apache Beam must be installed", "pip install 'omnijax[beam]'"
            raise errors.PlatformError("apache-beam", "not installed", rule, fix)
        from apache_beam.options import pipeline_options

        logging.getLogger("apache_beam").setLevel(logging.ERROR)  # pages of notices on every worker's start and end
        # Beam itself would ignore a misspelt option.
        known = pipeline_options.PipelineOptions([]).get_all_options()
        for option in options:
            name = option.split("=")[0]
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3)
                fix = f"did you mean {' or '.join(near)}?" if near else "see Beam's documentation of the runner"
                raise errors.ConfigError("--beam", option, "it must be an option of Beam's pipelines, name=value", fix)
            if option == "direct_running_mode=multi_threading":
                # Seen with Beam 2.77.0: in 4 of 5 runs some records in a thousand were missing behind a GroupByKey.
                rule, fix = "Beam's local runner loses records in its threads", "direct_running_mode=multi_processing"
                raise errors.ConfigError("--beam", option, rule, fix)
        self._options = [f"--{option}" for option in (*DEFAULTS, *options)]  # the last one of a name holds

    def each(self, function: Callable[[Any], None], arguments: Sequence[Any]) -> None:
        """Calls a function, which can be pickled, with each of some arguments, on the workers."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        with beam.Pipeline(options=PipelineOptions(self._options)) as pipeline:
            _ = pipeline | beam.Create(list(arguments)) | beam.Reshuffle() | beam.Map(function)
