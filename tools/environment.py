"""Make the virtual environment that the Makefile works in: build the wheel, install it with one extra.

    python3 tools/environment.py .venv wheel
    python3 tools/environment.py .venv install test

Whatever is missing is said in one plain paragraph; pip's own output goes to pip.log in the environment. Each step
that succeeded leaves a stamp there for make. The first lines must run on any Python 3, to be able to say that it is too
old; hence the old-fashioned formatting, and annotations that are strings.
"""

import glob
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)


def main(venv: str, task: str, extra: str = "") -> None:
    check_python()
    python = os.path.join(venv, "bin", "python")
    log = os.path.join(venv, "pip.log")
    if task == "wheel":
        if not is_usable(python):
            create(venv)
        build(python, log)
        stamp = "wheel"
    else:
        install(python, extra, log)
        stamp = extra
    with open(os.path.join(venv, stamp + ".stamp"), "w"):
        pass


def check_python() -> None:
    version = "%d.%d.%d" % sys.version_info[:3]
    if sys.version_info[:2] < OLDEST:
        fail("trax needs Python %d.%d or newer; %s is %s." % (OLDEST + (sys.executable, version)), another())
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        fail(
            "Python %s at %s came without its module '%s', which makes virtual environments."
            % (version, sys.executable, error.name),
            "On Debian and Ubuntu, 'apt install python%d.%d-venv' adds it. %s" % (sys.version_info[:2] + (another(),)),
        )


def another() -> str:
    return "Or name another interpreter: make PYTHON=/path/to/python%d.%d" % OLDEST


def is_usable(python: str) -> bool:
    """Whether the environment is there, runs, and is of the same Python as the one that was asked for."""
    question = "import pip, sys; sys.exit(sys.version_info[:2] != (%d, %d))" % sys.version_info[:2]
    try:
        return subprocess.call([python, "-c", question], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def create(directory: str) -> None:
    import venv

    say("making a virtual environment of Python %d.%d in %s" % (sys.version_info[:2] + (directory,)))
    try:
        venv.create(directory, clear=True, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        fail("Python could not make a virtual environment in %s: %s" % (directory, error), another())


def build(python: str, log: str) -> None:
    """Build the wheel into dist/, from nothing: setuptools would carry deleted modules over from its last build."""
    import tomllib

    with open("pyproject.toml", "rb") as file:
        requires = tomllib.load(file)["build-system"]["requires"]
    say("building the wheel")
    remove("build", "dist")
    pip(python, log, "install", *requires)
    pip(python, log, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    remove("build", *glob.glob("*.egg-info"))
    pip(python, log, "install", "--no-deps", "--force-reinstall", wheel())


def install(python: str, extra: str, log: str) -> None:
    say("installing what '%s' needs" % extra)
    everything = "%s[%s]" % (wheel(), extra)
    if extra == "bench" and run_pip(python, log, "install", everything):
        install_what_can_be_had(python, extra, log)
    elif extra != "bench":
        pip(python, log, "install", everything)


def install_what_can_be_had(python: str, extra: str, log: str) -> None:
    """One by one: a comparison is worth something even if one of the others can't be installed here."""
    pip(python, log, "install", wheel())
    for requirement in requirements(extra):
        if run_pip(python, log, "install", requirement):
            say("left out, because pip could not install it: %s" % requirement)


def requirements(extra: str) -> "list[str]":
    """What an extra asks for, as the wheel says it."""
    import email
    import zipfile

    with zipfile.ZipFile(wheel()) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    split = [line.partition(";") for line in metadata.get_all("Requires-Dist", [])]
    return [requirement for requirement, _, marker in split if marker.strip() == 'extra == "%s"' % extra]


def remove(*directories: str) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def wheel() -> str:
    (path,) = glob.glob("dist/trax_log-*.whl")
    return path


def pip(python: str, log: str, command: str, *arguments: str) -> None:
    if run_pip(python, log, command, *arguments):
        with open(log, errors="replace") as file:
            explain(file.read(), log)


def run_pip(python: str, log: str, command: str, *arguments: str) -> int:
    options = ["--disable-pip-version-check", "--no-input", "--retries", "2"]
    with open(log, "w") as file:
        return subprocess.call(
            [python, "-m", "pip", command] + options + list(arguments), stdout=file, stderr=subprocess.STDOUT
        )


def explain(output: str, log: str) -> None:
    """End with what most likely went wrong."""
    missing = [line for line in output.splitlines() if "No matching distribution found for" in line]
    unreachable = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError", "Max retries")
    if missing or any(sign in output for sign in unreachable):
        what = missing[-1].split("found for")[1].strip() if missing else "the packages it needs"
        fail(
            "pip could not get %s. Most likely there is no network here, or no package index can be reached." % what,
            "The first run needs one. What pip said is in %s" % log,
        )
    errors = [line for line in output.splitlines() if line.lower().startswith("error")]
    fail("pip failed: %s" % (errors[-1] if errors else "it gave no reason"), "Everything it said is in %s" % log)


def say(text: str) -> None:
    print(text, flush=True)


def fail(*lines: str) -> None:
    sys.exit("\n".join(("",) + lines + ("",)))


if __name__ == "__main__":
    main(*sys.argv[1:])
