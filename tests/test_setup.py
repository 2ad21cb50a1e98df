"""The shell scripts and the failures that they detect, without a network.

Each test works on a copy of the scripts in a folder whose name has a space. PATH holds only a few
tools and fake interpreters: shell scripts that answer like Python and record their arguments. One
test at the end uses the real Python, venv and pip.
"""

from __future__ import annotations

import fcntl
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HANG = 300.0
"""Seconds until a test gives up; one creates a real environment. No test measures time with it."""

TOOLS = ("bash", "cp", "dirname", "env", "flock", "mkdir", "mv", "rm", "sleep", "uname")
PINS = "something==1.0\n"

# A fake Python that reports {version} and {bits}. FAKE_FAIL names the module that fails, and
# FAKE_SLOW makes pip slow.
PYTHON = r"""#!/usr/bin/env bash
printf '%s\n' "$*" >>"$FAKE_LOG"
case "$*" in
    "-E -c "*) printf '%s\n' '{version} {bits}' ;;
    "-I -c import ensurepip, venv") [ "${{FAKE_FAIL:-}}" != ensurepip ] ;;
    "-I -m venv --clear "*)
        rm -rf -- "$5"
        mkdir -p -- "$5/bin"
        cp -- "$0" "$5/bin/python"
        ;;
    "-I -m pip install "*)
        echo "noise of pip"
        if [ -n "${{FAKE_SLOW:-}}" ]; then sleep 1; fi
        [ "${{FAKE_FAIL:-}}" != pip ] || exit 1
        case "$*" in *requirements-media.txt*) [ "${{FAKE_FAIL:-}}" != media ] ;; esac
        ;;
    "-m "*)
        printf '%s\n' "$*"
        [ "${{FAKE_FAIL:-}}" != "$2" ]
        ;;
    "scripts/download_model.py "*) ;;
    *) exit 99 ;;
esac
"""

PYTEST = "-m pytest -n auto --dist loadfile --no-loadscope-reorder"
"""The call of pytest by scripts/test."""


class Clone:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.cwd = folder / "elsewhere"
        for path in (self.root, self.bin, self.cwd):
            path.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        for name in ("requirements.txt", "requirements-test.txt"):
            (self.root / name).write_text(PINS)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"these tests need {tool}"
            (self.bin / tool).symlink_to(found)
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "FAKE_LOG": str(self.log),
        }

    def add_python(self, name: str, version: str = "3.11.7", bits: int = 64) -> Path:
        return self.add_program(name, PYTHON.format(version=version, bits=bits))

    def add_program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def command(self, script: str, *arguments: str) -> list[str]:
        return [str(self.root / script), *arguments]

    def run(
        self, script: str, *arguments: str, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        merged = {**self.environment, **environment}
        return subprocess.run(
            self.command(script, *arguments),
            env={name: value for name, value in merged.items() if value is not None},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )

    def calls(self, of: str) -> list[str]:
        """The interpreters' calls that contain `of`, since the last call of this method."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if of in line]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The stderr of a run that was rejected: status 1, nothing on stdout, no traceback."""
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "line " not in done.stderr  # bash reports errors of a script with this
    return done.stderr


def test_first_run_installs_and_starts_and_the_second_only_starts(clone):
    clone.add_python("python3")
    first = clone.run("scripts/run", "--port", "7")
    assert (first.returncode, first.stdout) == (0, "-m app -m tiny.en --port 7\n")
    assert "noise of pip" in first.stderr
    (pip,) = clone.calls("pip install")
    assert pip.endswith(f"-r {clone.root}/requirements.txt")
    second = clone.run("scripts/run")
    assert (second.returncode, second.stdout, second.stderr) == (0, "-m app -m tiny.en\n", "")
    assert clone.calls("pip") == []


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [(("--queue", "nats://b"), ""), (("--queue=nats://b",), ""), ((), "nats://b")],
)
def test_run_installs_the_client_of_the_queue_if_it_is_asked_for(clone, arguments, variable):
    (clone.root / "requirements-queue.txt").write_text(PINS)
    clone.add_python("python3")
    clone.run("scripts/run", "--queue-size", "5", NODE_WHISPER_QUEUE="")
    (pip,) = clone.calls("pip install")
    assert "requirements-queue.txt" not in pip
    done = clone.run("scripts/run", *arguments, NODE_WHISPER_QUEUE=variable)
    assert done.stdout.split() == ["-m", "app", "-m", "tiny.en", *arguments]
    (pip,) = clone.calls("pip install")
    assert "requirements-queue.txt" in pip


def test_queue_installs_only_its_own_requirements(clone):
    clone.add_python("python3")
    (clone.root / "requirements-queue.txt").write_text(PINS)
    done = clone.run("scripts/queue", "status", "--queue", "nats://broker")
    assert done.stdout.endswith("-m queue_tool.cli status --queue nats://broker\n")
    (pip,) = clone.calls("pip install")
    assert pip.endswith(f"-r {clone.root}/requirements-queue.txt")
    assert "requirements.txt" not in pip
    clone.run("scripts/queue", "status")
    assert clone.calls("pip install") == []


def test_model_of_the_environment_is_not_overridden(clone):
    clone.add_python("python3")
    done = clone.run("scripts/run", NODE_WHISPER_MODEL="base")
    assert done.stdout == "-m app -m base\n"


@pytest.fixture
def media(clone: Clone) -> Path:
    """A clone with the optional requirements of PyAV."""
    clone.add_python("python3")
    path = clone.root / "requirements-media.txt"
    path.write_text(PINS)
    return path


def test_run_installs_pyav_and_tests_and_checks_do(clone, media):
    first = clone.run("scripts/run")
    assert (first.returncode, first.stdout) == (0, "-m app -m tiny.en\n")
    core, optional = clone.calls("pip install")
    assert str(media) not in core
    assert optional.endswith(f"-r {media}")
    second = clone.run("scripts/run")
    assert (second.returncode, second.stderr) == (0, "")
    assert clone.run("scripts/test").returncode == 0
    (pip,) = clone.calls("pip install")
    assert f"-r {media}" in pip
    media.write_text("something==2.0\n")
    clone.run("scripts/run")
    assert len(clone.calls("pip install")) == 1


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [(["--media", "off"], None), (["--port", "7", "--media=off"], None), ([], "off")],
)
def test_run_with_media_off_leaves_pyav_out(clone, media, arguments, variable):
    done = clone.run("scripts/run", *arguments, NODE_WHISPER_MEDIA=variable)
    assert done.stdout == " ".join(["-m app -m tiny.en", *arguments]) + "\n"
    assert str(media) not in " ".join(clone.calls("pip install"))


def test_run_with_an_option_overrides_the_variable(clone, media):
    clone.run("scripts/run", "--media", "auto", NODE_WHISPER_MEDIA="off")
    assert str(media) in " ".join(clone.calls("pip install"))


def test_run_starts_without_pyav_where_it_has_no_wheel(clone, media):
    first = clone.run("scripts/run", FAKE_FAIL="media")
    assert (first.returncode, first.stdout) == (0, "-m app -m tiny.en\n")
    assert "pip install -r" in first.stderr
    assert clone.calls("-m venv --clear")
    # Neither the attempt nor the set-up of the other packages is repeated.
    again = clone.run("scripts/run", FAKE_FAIL="media")
    assert (again.returncode, again.stderr) == (0, "")
    assert clone.calls("pip install") == []
    media.write_text("something==2.0\n")
    assert clone.run("scripts/run").returncode == 0
    (pip,) = clone.calls("pip install")
    assert f"-r {media}" in pip
    assert clone.run("scripts/run").stderr == ""


def test_changed_requirements_are_installed_into_the_same_environment(clone):
    clone.add_python("python3")
    clone.run("scripts/run")
    (clone.root / "requirements.txt").write_text("something==2.0\n")
    clone.calls("")
    assert clone.run("scripts/run").returncode == 0
    calls = clone.calls("")
    assert len([call for call in calls if "pip install" in call]) == 1
    assert not [call for call in calls if "-m venv" in call]
    assert clone.run("scripts/run").returncode == 0
    assert clone.calls("pip") == []


@pytest.mark.parametrize(
    "state", ["pip failed", "upgrade failed", "killed before the stamp", "interpreter gone"]
)
def test_incomplete_environment_is_created_again(clone, state):
    clone.add_python("python3")
    if state == "upgrade failed":
        clone.run("scripts/run")
        (clone.root / "requirements.txt").write_text("something==2.0\n")
        assert clone.run("scripts/run", FAKE_FAIL="pip").returncode == 1
        # The old pins again. The failed upgrade may have left other versions.
        (clone.root / "requirements.txt").write_text(PINS)
    elif state == "pip failed":
        done = clone.run("scripts/run", FAKE_FAIL="pip")
        assert "pip could not install requirements.txt" in refusal(done)
    else:
        clone.run("scripts/run")
        if state == "killed before the stamp":
            (clone.root / ".venv/installed").rename(clone.root / ".venv/installed.new")
        else:
            (clone.root / ".venv/bin/python").unlink()
    clone.calls("")
    done = clone.run("scripts/run")
    assert (done.returncode, done.stdout) == (0, "-m app -m tiny.en\n")
    assert "again" in done.stderr
    assert clone.calls("-m venv --clear")


def test_upgraded_python_creates_the_environment_again(clone):
    clone.add_python("python3", "3.11.7")
    clone.run("scripts/run")
    upgraded = clone.add_python("python3", "3.12.1")
    shutil.copy(upgraded, clone.root / ".venv/bin/python")
    clone.calls("")
    assert clone.run("scripts/run").returncode == 0
    assert clone.calls("-m venv --clear")


def test_two_runs_at_once_install_once(clone):
    clone.add_python("python3")
    environment = {**clone.environment, "FAKE_SLOW": "1"}
    both = [
        subprocess.Popen(
            clone.command("scripts/run"),
            env=environment,
            cwd=clone.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    for process in both:
        output, _ = process.communicate(timeout=HANG)
        assert (process.returncode, output) == (0, b"-m app -m tiny.en\n")
    assert len(clone.calls("pip install")) == 1


def test_run_reports_that_it_waits_for_another_setup(clone):
    clone.add_python("python3")
    with (clone.root / "requirements.txt").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            clone.command("scripts/run"),
            env=clone.environment,
            cwd=clone.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "waiting" in waiting.stderr.readline()
    output, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, output) == (0, "-m app -m tiny.en\n")
    assert len(clone.calls("pip install")) == 1


def test_python_is_the_first_in_range(clone):
    clone.add_python("python3", "3.9.18")
    clone.add_program("python3.13", "#!/usr/bin/env bash\nexit 127\n")  # a shim without a Python
    clone.add_python("python3.12", "3.12.1")
    clone.add_python("python3.10", "3.10.13")
    done = clone.run("scripts/run")
    assert done.returncode == 0
    assert "with Python 3.12.1" in done.stderr


def test_python_can_be_named_and_renamed(clone, tmp_path):
    clone.add_python("python3", "3.11.7")
    other = clone.add_python("another", "3.13.0").rename(tmp_path / "my python")
    assert "with Python 3.11.7" in clone.run("scripts/run").stderr
    assert "with Python 3.13.0" in clone.run("scripts/run", PYTHON=str(other)).stderr
    clone.calls("")
    # Without PYTHON, the existing environment is kept.
    assert clone.run("scripts/run").returncode == 0
    assert clone.calls("pip") == []


@pytest.mark.parametrize("version", ["2.7.18", "3.9.18", "3.14.0"])
def test_unsupported_python_is_rejected(clone, version):
    clone.add_python("python3", version)
    said = refusal(clone.run("scripts/run"))
    assert f"python3 is Python {version}" in said
    assert "3.10" in said
    assert "PYTHON=" in said
    assert not (clone.root / ".venv").exists()


def test_run_without_any_python_is_rejected(clone):
    said = refusal(clone.run("scripts/run"))
    assert "there is none on PATH." in said
    assert "apt install python3" in said


@pytest.mark.parametrize(
    ("value", "expected"),
    [("python3", "python3 is Python 3.9.18"), ("/nowhere/python", "does not start as a Python")],
)
def test_named_python_that_is_unsuitable_is_rejected(clone, value, expected):
    clone.add_python("python3", "3.9.18")
    clone.add_python("python3.12", "3.12.1")
    said = refusal(clone.run("scripts/run", PYTHON=value))
    assert f"PYTHON={value} is not suitable" in said
    assert expected in said


def test_missing_venv_module_is_reported(clone):
    clone.add_python("python3", "3.11.2")
    said = refusal(clone.run("scripts/run", FAKE_FAIL="ensurepip"))
    assert "apt install python3-venv" in said
    assert "python3.11-venv" in said
    assert not (clone.root / ".venv").exists()


@pytest.mark.parametrize("machine", ["armv7l", "armv6l", "i686"])
def test_32_bit_machine_is_rejected(clone, machine):
    clone.add_python("python3")
    clone.add_program("uname", f"#!/usr/bin/env bash\necho {machine}\n")
    said = refusal(clone.run("scripts/run"))
    assert machine in said
    assert "64-bit system" in said


def test_32_bit_machine_rejects_a_64_bit_environment(clone):
    clone.add_python("python3")
    clone.run("scripts/run")
    clone.add_program("uname", "#!/usr/bin/env bash\necho i686\n")
    assert "64-bit system" in refusal(clone.run("scripts/run"))


def test_32_bit_python_on_a_64_bit_kernel_is_rejected(clone):
    clone.add_python("python3", bits=32)
    said = refusal(clone.run("scripts/run"))
    assert "32-bit Python" in said
    assert "64-bit system" in said


def test_check_installs_the_optional_packages_whose_types_mypy_reads(clone):
    clone.add_python("python3")
    (clone.root / "requirements-convert.txt").write_text(PINS)
    assert clone.run("scripts/check").returncode == 0
    (pip,) = clone.calls("pip install")
    for name in ("requirements.txt", "requirements-test.txt", "requirements-convert.txt"):
        assert f"-r {clone.root}/{name}" in pip


def test_scripts_test_adds_its_requirements_and_keeps_them_for_run(clone):
    clone.add_python("python3")
    (clone.root / "requirements-convert.txt").write_text(PINS)
    done = clone.run("scripts/test", "-k", "some thing")
    assert (done.returncode, done.stdout) == (
        0,
        f"{PYTEST} -k some thing\n",
    )
    (pip,) = clone.calls("pip install")
    for name in ("requirements.txt", "requirements-test.txt", "requirements-convert.txt"):
        assert f"-r {clone.root}/{name}" in pip
    assert clone.run("scripts/run").returncode == 0
    assert clone.run("scripts/test").returncode == 0
    assert clone.calls("pip") == []
    (clone.root / "requirements.txt").write_text("something==2.0\n")
    clone.run("scripts/run")
    (pip,) = clone.calls("pip install")
    assert "requirements-test.txt" in pip


@pytest.mark.parametrize("fails", ["ruff", "mypy"])
def test_scripts_check_runs_all_and_fails_with_any(clone, fails):
    clone.add_python("python3")
    all_three = ["-m ruff check .", "-m ruff format --check .", "-m mypy --strict app"]
    good = clone.run("scripts/check")
    assert (good.returncode, good.stdout.splitlines()) == (0, all_three)
    bad = clone.run("scripts/check", FAKE_FAIL=fails)
    assert (bad.returncode, bad.stdout.splitlines()) == (1, all_three)


@pytest.mark.parametrize(("fails", "code"), [("", 0), ("mypy", 1), ("pytest", 1)])
def test_ci_runs_the_tests_last_and_fails_with_any(clone, fails, code):
    clone.add_python("python3")
    done = clone.run(".ci/run", FAKE_FAIL=fails)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == PYTEST


def test_scripts_work_with_the_real_python(clone):
    """The requirements files are empty, so that the real pip needs no network."""
    for name in ("requirements.txt", "requirements-test.txt"):
        (clone.root / name).write_text("# nothing\n")
    (clone.root / "app").mkdir()
    (clone.root / "app/__main__.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.getcwd(), sys.prefix)\n"
    )
    if sys.version_info >= (3, 11):  # 3.10 has no way to keep the current folder off sys.path
        (clone.cwd / "app.py").write_text("raise SystemExit('the wrong app')\n")
    expected = f"['-m', 'tiny.en', '-m', 'x y'] {clone.cwd} {clone.root}/.venv\n"
    for home in ("", None):
        done = clone.run("scripts/run", "-m", "x y", PYTHON=sys.executable, HOME=home)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
    # The proxy does not exist, so any network request would give an error message.
    done = clone.run("scripts/run", "-m", "x y", HTTPS_PROXY="http://127.0.0.1:9")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    assert list(clone.cwd.iterdir()) == [clone.cwd / "app.py"] * (sys.version_info >= (3, 11))

    described = subprocess.run(
        ["bash", "-c", '. scripts/lib/setup.sh; describe_python "$0"', sys.executable],
        cwd=clone.root,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    version = ".".join(str(part) for part in sys.version_info[:3])
    assert described.stdout == f"{version} {struct.calcsize('P') * 8}\n"
