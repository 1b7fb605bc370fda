"""The package's metadata. The tools' settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """Read ``trax/_version.py`` without importing the package, whose dependencies may not be installed yet."""
    namespace: dict[str, str] = {}
    exec((HERE / "trax" / "_version.py").read_text(encoding="utf-8"), namespace)
    return namespace["__version__"]


EXTRAS = {
    "numpy": ["numpy>=1.26"],
    "cli": ["rich>=13.7"],
    "fast": ["isal>=1.6", "msgspec>=0.18.6"],
    "yaml": ["PyYAML>=6.0"],
    "progress": ["tqdm>=4.66"],
}
EXTRAS["all"] = sorted({requirement for requirements in EXTRAS.values() for requirement in requirements})

# What works on trax itself needs: `make test`, `make lint`, `make docs` and `make bench` install these.
TOOLS = {
    "test": [
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "pytest-cov>=6.0",
        "coverage>=7.10",
        "hypothesis>=6.100",
        "mypy>=1.14",
        *EXTRAS["numpy"],
        *EXTRAS["cli"],
        *EXTRAS["fast"],
        *EXTRAS["yaml"],
        *EXTRAS["progress"],
    ],
    "lint": [
        "ruff>=0.9",
        "mypy>=1.14",
        "types-setuptools",
        *EXTRAS["numpy"],
        *EXTRAS["cli"],
        *EXTRAS["fast"],
        *EXTRAS["yaml"],
        *EXTRAS["progress"],
    ],
    "docs": ["sphinx>=8.0", "furo", *EXTRAS["numpy"], *EXTRAS["yaml"]],
    # What `make bench` measures trax against; what can't be installed is left out of the comparison.
    "bench": [
        *EXTRAS["fast"],
        "ZODB>=6.0",
        "diskcache>=5.6",
        "h5py>=3.11",
        "lmdb>=1.5",
        "matplotlib>=3.9",
        "optuna>=4.0",
        "plyvel>=1.5",
        "rocksdict>=0.3.23",
        "safetensors>=0.4",
        "zarr>=3.0",
        *EXTRAS["numpy"],
    ],
}

setup(
    # The index has another project named "trax" with the same import name, hence the longer name.
    name="trax-log",
    version=version(),
    description="A killed job resumes as if it had never been killed: a snapshot plus an incremental log.",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="trax contributors",
    license_expression="MIT",
    license_files=["COPYING"],
    packages=find_packages(include=["trax", "trax.*"]),
    package_data={"trax": ["py.typed"]},
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=["msgpack>=1.1", "filelock>=3.30"],
    extras_require=EXTRAS | TOOLS,
    entry_points={"console_scripts": ["trax = trax.cli:main"], "pytest11": ["trax = trax.testing.plugin"]},
    keywords=["checkpoint", "log", "crash recovery", "durability", "restart", "scientific computing"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Database",
        "Topic :: Scientific/Engineering",
        "Topic :: System :: Recovery Tools",
        "Typing :: Typed",
    ],
)
