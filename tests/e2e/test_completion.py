"""Shells complete commands, options and the values of settings, by the program's own script."""

import asyncio
import os
import shlex
import shutil
import subprocess

import pytest

BASH = """
eval "$(replicator --show-completion)"
complete -p replicator >&2
while read -r -a COMP_WORDS; do
    [[ ${COMP_WORDS[-1]} == '""' ]] && COMP_WORDS[-1]=
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _replicator_completion replicator
    echo "${COMPREPLY[*]}"
done
"""
"""Reads command lines whose last word is completed, and prints what that could be."""

LINES = {
    "replicator st": "status",
    'replicator sync --s3-engine ""': "auto s3fs obstore",
    "replicator status --watch": "--watch --watcher",
    "replicator pod x.yaml --sidecar n": "none native",
    "replicator explain out/": "",
}


@pytest.fixture
def on_path(bare, tmp_path):
    """The command as it is when it is installed: `replicator` on the PATH."""
    shim = tmp_path / "bin/replicator"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.join(bare.program)} "$@"\n')
    shim.chmod(0o755)
    return bare.environment(PATH=f"{shim.parent}:{os.environ['PATH']}")


async def run(*command: str, env: dict[str, str], told: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, command, env=env, input=told, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
async def test_bash_completes_with_the_script_that_the_program_prints(on_path):
    """Real bash, COMP_WORDS and all; where nothing is proposed, bash itself proposes files."""
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")

    done = await run("bash", "--norc", "-c", BASH, env=on_path, told="\n".join(LINES) + "\n")

    assert dict(zip(LINES, done.stdout.splitlines(), strict=True)) == LINES
    assert "-o default" in done.stderr


@pytest.mark.parametrize(
    ("shell", "told"), [("zsh", '"auto"\n"s3fs"\n"obstore"'), ("fish", "auto\ns3fs\nobstore")], ids=["zsh", "fish"]
)
async def test_other_shells_are_answered_in_their_own_form(on_path, shell, told):
    """What the scripts for zsh and fish ask the program when a person presses the key."""
    asked = {
        "_REPLICATOR_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "replicator sync --s3-engine ",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }

    done = await run("replicator", env=on_path | asked)

    assert told in done.stdout
    assert done.stderr == ""
