import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from sftjob.train.launcher import wrapped


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_orphan_in_a_session_of_its_own_is_found_and_killed() -> None:
    done = run(
        """
        import subprocess, sys
        from sftjob.train.processes import become_subreaper, kill_descendants
        become_subreaper()
        orphan = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
        child = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-S', '-c', {orphan!r}], stdout=1)"
        process = subprocess.Popen([sys.executable, "-S", "-c", child], stdout=subprocess.PIPE, text=True)
        pid = process.stdout.readline().strip()
        process.wait()
        print(pid, *kill_descendants())
        """
    )
    assert done.returncode == 0, done.stderr
    assert not alive(int(done.stdout))  # one number: nobody has survived


def test_those_to_be_kept_are_kept() -> None:
    done = run(
        """
        import os, subprocess
        from sftjob.train.processes import descendants, kill_descendants
        kept = subprocess.Popen(["sleep", "600"])
        before = descendants(os.getpid())
        other = subprocess.Popen(["sleep", "600"])
        kill_descendants(keep=before)
        print(kept.poll(), descendants(os.getpid()) == {kept.pid})
        kept.kill()
        """
    )
    assert done.stdout.split() == ["None", "True"], done.stderr


def test_a_wrapped_command_ends_with_its_parent() -> None:
    done = run(
        f"""
        import os, subprocess
        command = {wrapped(["sh", "-c", "echo $$; exec sleep 600"])!r}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        print(process.stdout.readline(), flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    assert done.returncode == -9
    pid = int(done.stdout)
    for _ in range(1000):
        if not alive(pid) or _is_zombie(pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} outlived its parent")


def test_a_wrapped_command_whose_parent_is_gone_already_does_not_start() -> None:
    done = subprocess.run(wrapped(["echo", "started"], parent=2**30), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "")


def test_a_wrapped_command_keeps_arguments_and_exit_code() -> None:
    command = [sys.executable, "-S", "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "--parent", "x y"]
    done = subprocess.run(wrapped(command, parent=os.getpid()), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (7, "['--parent', 'x y']")


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
