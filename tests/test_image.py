"""Checks of the image without building it; scripts/dev/verify_arm64 builds and runs it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_build import portable
from locks import locked

from app.decoding import backends
from app.decoding.transcriber import EngineError
from app.settings.option import PREFIX
from app.settings.options import OPTIONS

ROOT = Path(__file__).resolve().parent.parent

DOCKERFILE = ROOT / "Dockerfile.arm64"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@dataclass(frozen=True)
class Instruction:
    stage: int
    name: str
    text: str


def instructions() -> list[Instruction]:
    """The instructions of the Dockerfile. Stage -1 is the part before the first FROM."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    found = []
    stage = -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        assert name.isupper(), line
        stage += name == "FROM"
        found.append(Instruction(stage, name, " ".join(text.split())))
    return found


INSTRUCTIONS = instructions()
LAST = max(instruction.stage for instruction in INSTRUCTIONS)


def in_image(name: str) -> list[str]:
    """The instructions of this name in the last stage, which becomes the image."""
    return [i.text for i in INSTRUCTIONS if i.stage == LAST and i.name == name]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for text in in_image("ENV") for pair in text.split(" "))


def ignored(path: str) -> bool:
    """Whether .dockerignore, which lists the allowed paths, excludes a path."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!") and (path == line[1:] or path.startswith(line[1:] + "/")):
            return False
    return True


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed here (requirements-test.txt has it)")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_dockerfile_at_the_root_is_a_link() -> None:
    assert (ROOT / "Dockerfile").is_symlink()
    assert (ROOT / "Dockerfile").resolve() == DOCKERFILE


def test_copied_files_exist_and_are_not_ignored() -> None:
    copied = [i.text for i in INSTRUCTIONS if i.name == "COPY" and not i.text.startswith("--")]
    assert copied
    for text in copied:
        *sources, _target = text.split(" ")
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source
    assert ignored("models/ggml-tiny.en-q8_0.bin")


def test_dockerignore_names_only_existing_files() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    for line in lines:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line


def test_stages_copy_the_scripts_that_they_run() -> None:
    """A RUN can use only the node's scripts that its stage has copied."""
    stages = {i.stage for i in INSTRUCTIONS if i.name == "RUN" and "scripts/" in i.text}
    for stage in stages:
        run = " ".join(i.text for i in INSTRUCTIONS if i.stage == stage and i.name == "RUN")
        copied = " ".join(i.text for i in INSTRUCTIONS if i.stage == stage and i.name == "COPY")
        for script in re.findall(r"scripts/\w+(?:\.py)?", run):
            assert script in copied


def test_copies_come_from_existing_stages() -> None:
    names = {i.text.split(" AS ")[1] for i in INSTRUCTIONS if i.name == "FROM" and " AS " in i.text}
    wanted = {match for i in INSTRUCTIONS for match in re.findall(r"--from=(\w+)", i.text)}
    assert wanted
    assert wanted <= names


def test_dockerfile_names_no_architecture() -> None:
    for instruction in INSTRUCTIONS:
        assert not re.search(r"arm64|aarch64|x86|amd64|--platform", instruction.text)


def test_image_has_user_stop_signal_and_health_check() -> None:
    (user,) = in_image("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert in_image("STOPSIGNAL") == ["SIGTERM"]
    assert in_image("ENTRYPOINT") == ['["python", "-m", "app"]']
    assert not in_image("CMD")
    (health,) = in_image("HEALTHCHECK")
    assert "deploy/healthcheck.py" in health


def test_image_declares_ports_and_volumes() -> None:
    assert in_image("EXPOSE") == ["56789 10300 8080"]
    (volumes,) = in_image("VOLUME")
    found = set(re.findall(r'"([^"]+)"', volumes))
    assert found == {"/models", "/spool", "/journal"}
    # A volume over one of these would hide files of the image.
    for kept in ("/app", "/app/models", "/opt/node-whisper"):
        assert not any(kept == volume or kept.startswith(volume + "/") for volume in found)
    settings = environment()
    assert settings["NODE_WHISPER_MODELS_DIR"] == "/models"
    assert settings["NODE_WHISPER_SPOOL_DIR"] == "/spool"


def test_settings_of_the_image_exist() -> None:
    known = {option.variable for option in OPTIONS}
    assert {name for name in environment() if name.startswith(PREFIX)} <= known


def test_image_states_its_licences_and_leaves_pyav_out_on_request() -> None:
    stages = {i.text.split(" AS ")[1]: i.stage for i in INSTRUCTIONS if " AS " in i.text}
    licences = {
        name: " ".join(
            i.text for i in INSTRUCTIONS if i.stage == stages[name] and i.name == "LABEL"
        )
        for name in ("media-off", "media-auto")
    }
    assert "GPL" in licences["media-auto"]
    assert "GPL" not in licences["media-off"]
    assert Instruction(LAST, "FROM", "media-${MEDIA}") in INSTRUCTIONS
    assert Instruction(-1, "ARG", "MEDIA=auto") in INSTRUCTIONS
    assert environment()["NODE_WHISPER_MEDIA"] == "${MEDIA}"
    (install,) = [i for i in INSTRUCTIONS if "requirements-media.txt;" in i.text]
    assert '[ "$MEDIA" != off ]' in install.text


def test_image_contains_no_compiler() -> None:
    text = " ".join(in_image("RUN"))
    assert "g++" not in text
    assert not re.search(r"torch|ffmpeg|build-essential|python3-dev|pip install", text)


def pinned(python: str) -> Iterator[str]:
    """The requirements under this Python. pip evaluates markers for the Python that runs it."""
    names = ("", "-convert", "-media", "-queue")
    for file in (f"requirements{name}.txt" for name in names):
        for requirement in locked(ROOT / file):
            marker, requirement.marker = requirement.marker, None
            versions = {"python_version": python, "python_full_version": f"{python}.0"}
            if marker is None or marker.evaluate(versions):
                yield str(requirement)


@pytest.fixture(scope="module")
def resolved() -> dict[str, subprocess.CompletedProcess[str]]:
    """pip's results for the pinned requirements on a 64-bit ARM board, by Python."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(PYTHONS, pool.map(resolve, PYTHONS), strict=True))


def resolve(python: str) -> subprocess.CompletedProcess[str]:
    # Ubuntu 22.04, the oldest system with a supported Python, has glibc 2.35.
    tags = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, 36))]
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"),
            *("--target", "nowhere", "--only-binary=:all:", "--implementation", "cp"),
            *("--disable-pip-version-check", "--retries", "1", "--timeout", "10"),
            # pip would compare a wheel's Requires-Python with the Python that runs it.
            *("--ignore-requires-python", "--python-version", python, *pinned(python)),
            *(f"--platform={tag}" for tag in tags),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("python", PYTHONS)
def test_requirements_have_wheels_for_arm(
    python: str, resolved: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = resolved[python]
    if done.returncode and re.search(
        r"connection|resolution|timed out|No route", done.stderr, re.I
    ):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


# The choice of the CPU library.


def test_backends_have_no_choice_in_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "_pywhispercpp.so").touch()
    assert backends.load(tmp_path / "_pywhispercpp.so") is None


def test_backends_report_libraries_without_ggml(tmp_path: Path) -> None:
    (tmp_path / "libggml-cpu-armv8.0_1.so").touch()
    with pytest.raises(EngineError, match=r"armv8\.0_1.*libggml\.so"):
        backends.load(tmp_path / "_pywhispercpp.so")


GGML = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
static void *chosen;
void ggml_backend_load_all_from_path(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/libggml-cpu-CHOSEN.so", folder);
    chosen = dlopen(path, RTLD_NOW);
}
void *ggml_backend_dev_by_type(int kind) { return kind == 0 ? chosen : NULL; }
"""


@pytest.fixture(params=["better_2", "none"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A folder with three libraries and a fake ggml that loads the named one, or finds none."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "ggml.c").write_text(GGML.replace("CHOSEN", request.param))
    (tmp_path / "cpu.c").write_text("int answer(void) { return 42; }\n")
    build = [compiler, "-shared", "-fPIC", "-o"]
    subprocess.run([*build, tmp_path / "libggml.so", tmp_path / "ggml.c", "-ldl"], check=True)
    for name in ("basic_1", "better_2", "best_3"):
        target = tmp_path / f"libggml-cpu-{name}.so"
        subprocess.run([*build, target, tmp_path / "cpu.c"], check=True)
    return tmp_path, request.param


def test_backends_tell_ggml_the_folder(engine: tuple[Path, str]) -> None:
    folder, chosen = engine
    # In a separate process, because a loaded library stays loaded.
    code = (
        "import sys; from pathlib import Path; from app.decoding import backends\n"
        "from app.decoding.transcriber import EngineError\n"
        "try:\n    print('chose', backends.load(Path(sys.argv[1])))\n"
        "except EngineError as error:\n    print('failed:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "_pywhispercpp.so")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    if chosen == "none":
        assert done.stdout.startswith("failed: none of the engine's CPU libraries works")
        for word in (str(folder), "libggml-cpu-*.so", "basic_1, best_3, better_2"):
            assert word in done.stdout
    else:
        assert done.stdout == "chose better_2\n"


def test_portable_finds_the_variants_in_a_build_file() -> None:
    ninja = (
        "build ggml-cpu-armv8.0_1: phony bin/libggml-cpu-armv8.0_1.so\n"
        "build ggml-cpu-armv8.2_1-feats: phony x\n"
        "build ggml-cpu-armv8.2_1: phony bin/libggml-cpu-armv8.2_1.so\n"
        "build ggml/src/edit_cache: phony x\n"
        "build ggml-base: phony x\n"
    )
    assert portable.variants(ninja) == ["ggml-cpu-armv8.0_1", "ggml-cpu-armv8.2_1"]


# The health check.


def check(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "deploy" / "healthcheck.py")],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def answers() -> Iterator[tuple[int, list[bytes]]]:
    """A port that sends the next reply in the list to each connection."""
    replies: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while replies:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(replies.pop(0))

        thread = threading.Thread(target=serve, daemon=True)
        replies += [
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            b"\x00\x05hello",
        ]
        thread.start()
        yield server.getsockname()[1], replies
        thread.join()


def test_health_check_asks_over_http(answers: tuple[int, list[bytes]]) -> None:
    port = str(answers[0])
    settings = {"NODE_WHISPER_HOST": "0.0.0.0", "NODE_WHISPER_HTTP_PORT": port}
    assert [check(**settings).returncode for _ in range(3)] == [0, 1, 1]


def test_health_check_connects_without_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        settings = {"NODE_WHISPER_PORT": port, "NODE_WHISPER_HTTP_PORT": ""}
        assert check(**settings).returncode == 0
        assert check(**(settings | {"NODE_WHISPER_HTTP_PORT": "off"})).returncode == 0
        # With TLS the check does not speak HTTP either; it only opens a connection.
        settings["NODE_WHISPER_TLS_CERT"] = "/x"
        assert check(**(settings | {"NODE_WHISPER_HTTP_PORT": "1"})).returncode == 0
    done = check(**settings)
    assert done.returncode == 1
    assert port in done.stdout


def test_health_check_of_a_node_without_ports_passes() -> None:
    assert check(NODE_WHISPER_PORT="off", NODE_WHISPER_HTTP_PORT="off").returncode == 0


def test_verify_arm64_names_a_missing_program() -> None:
    assert importlib.util.find_spec("arm64") is not None
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "dev" / "verify_arm64")],
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "buildah" in done.stderr
