"""`python -m dagster`, which a closed terminal ends as Ctrl-C does.

By itself `dagster dev` dies of SIGHUP at once, and its webserver and daemon live on, with its port.
"""

import runpy
import signal

from fomo_dagster.cli.interruptions import as_termination


def main() -> None:
    """Run Dagster's command line, with the arguments of this process."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's stays ignored
        signal.signal(signal.SIGHUP, as_termination)
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
