"""How fast ``trax`` is, beside the libraries that people use for the same, and beside what the machine allows.

    python -m benchmarks --cases B1,B5 --rounds 3

The way of a figure: a case (:mod:`benchmarks.cases`) names its contestants; :mod:`benchmarks.runner` runs each of them
once in every round, in a process and a directory of its own (:mod:`benchmarks.child`); the contestant measures its own
work and compares what it reads back with what it wrote (:mod:`benchmarks.task`); the medians, the ratios and the bars
are in :mod:`benchmarks.results`; :mod:`benchmarks.page` puts them into ``docs/benchmarks.rst``.

Why not pyperf: it repeats a function that leaves nothing behind, one benchmark after the other. Here each run fills a
directory, waits for a disk whose mood changes by the minute, and must be checked afterwards; so the contestants take
turns, and each turn is one long run.
"""
